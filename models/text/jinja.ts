/**
 * Chat templates run by @huggingface/jinja, within limits, and with Python's meaning where the library has JavaScript's
 * (jinjaInterpreter.ts).
 */
import { IngleError } from "../../device/errors.ts";
import { ChatTemplateError, UnsupportedModelError } from "../errors.ts";
import { BoundedInterpreter, type RenderOptions } from "./jinjaInterpreter.ts";
import { Environment, isNode, type Node, parseTemplate, textOf } from "./jinjaLibrary.ts";

const MAX_SOURCE = 2 ** 20; // characters; the longest template in use has about 30,000
const MAX_BLANKS = 10_000; // the library's time grows with the square of a run of white space

/** A template, parsed. */
export class Template {
  readonly #program: Node;

  /** Throws UnsupportedModelError for what the library can't parse or what is too long to parse. */
  constructor(source: string, name: string) {
    const text = source.replaceAll("\r\n", "\n");
    if (text.length > MAX_SOURCE) {
      throw new UnsupportedModelError(`${name}: ${text.length} characters, at most ${MAX_SOURCE} are supported`);
    }
    if (new RegExp(`\\s{${MAX_BLANKS}}`).test(text)) {
      throw new UnsupportedModelError(`${name}: holds ${MAX_BLANKS} blanks in a row, fewer are expected`);
    }
    const construct = /\{%[-+]?\s*(raw|include|import|from|extends|block|autoescape|with|trans|do)\b|\+%\}|\{%\+/.exec(
      text,
    );
    try {
      this.#program = withPrints(parseTemplate(text));
    } catch (cause) {
      const what = construct === null ? describeError(cause) : `"${construct[0]}" (${describeError(cause)})`;
      throw new UnsupportedModelError(`${name}: ${what} is not supported; pass another template`, { cause });
    }
  }

  /** The text for some variables. Throws ChatTemplateError, UnsupportedModelError. */
  render(variables: Readonly<Record<string, unknown>>, options: RenderOptions): string {
    const scope = new Environment();
    const interpreter = new BoundedInterpreter(scope, options);
    try {
      for (const [name, value] of Object.entries({ ...interpreter.globals(), ...variables })) scope.set(name, value);
      return textOf(interpreter.run(this.#program)) ?? "";
    } catch (cause) {
      if (cause instanceof IngleError) throw cause;
      const what = describeError(cause);
      if (/^Unknown (?!variable)/.test(what) || /is not a function: got|not currently supported/.test(what)) {
        throw new UnsupportedModelError(`chat template: uses what is not supported (${what}); pass another template`, {
          cause,
        });
      }
      throw new ChatTemplateError(`chat template: ${what}; check the messages against what the template takes`, {
        cause,
      });
    }
  }
}

function describeError(cause: unknown): string {
  if (cause instanceof RangeError && /call stack/.test(cause.message)) return "nests too deeply";
  return cause instanceof Error ? cause.message : String(cause);
}

const BODIES: readonly string[] = ["body", "alternate", "defaultBlock"];
const STATEMENTS: ReadonlySet<string> = new Set(
  "If For Set Macro Break Continue CallStatement FilterStatement Comment StringLiteral".split(" "),
);

/** The tree with every printed expression inside a node of type Print. */
function withPrints(node: Node): Node {
  const bodies = BODIES.flatMap((key) => {
    const body = node[key];
    return Array.isArray(body) ? [[key, body.filter(isNode).map(withPrint)]] : [];
  });
  return variant(node, Object.fromEntries(bodies));
}

function withPrint(node: Node): Node {
  return STATEMENTS.has(node.type) ? withPrints(node) : variant(node, { type: "Print", expression: node });
}

/** A node of the same class, which the library looks at, with other fields. */
function variant(node: Node, fields: object): Node {
  return Object.assign(Object.create(Object.getPrototypeOf(node)), node, fields);
}
