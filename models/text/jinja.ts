/**
 * Chat templates run by @huggingface/jinja, within limits, and with Python's meaning where the library has JavaScript's.
 *
 * The library walks the tree through one method, `evaluate`; overriding it bounds every step and replaces the nodes that differ:
 * what is printed (`True`, `None`), strings by code points, `strip` with an argument, `+` of text and something else, `x.items()`
 * of a mapping that has a key "items".
 */
import { IngleError } from "../../device/errors.ts";
import { UnsupportedModelError } from "../errors.ts";
import {
  Environment,
  entriesOf,
  Interpreter,
  isNode,
  itemsOf,
  type Node,
  numberOf,
  parseTemplate,
  type Scope,
  type TreeInterpreter,
  textOf,
  toValue,
  type Value,
} from "./jinjaLibrary.ts";
import { capitalize, equal, indent, lines, print, split, strftime, strip, title } from "./pythonText.ts";

/** The template refused the messages, or did more than a template may. */
export class ChatTemplateError extends IngleError {
  constructor(message: string, options?: ErrorOptions) {
    super("CHAT_TEMPLATE", message, options);
  }
}

/** What one rendering may use. Time is looked at between steps, and a step is bounded by the lengths. */
export interface TemplateLimits {
  /** Nodes evaluated, and more for long values. */
  readonly steps: number;
  /** Milliseconds. */
  readonly time: number;
  /** UTF-16 units of any one string, the output included. */
  readonly length: number;
}

/** What a template is rendered with. */
export interface RenderOptions {
  readonly limits: TemplateLimits;
  /** What `strftime_now` calls now. */
  readonly now: Date;
  /** Changes the template's own strings before they are used. */
  readonly literal?: (text: string) => string;
}

const MAX_SOURCE = 2 ** 20; // characters; the longest template in use has about 30,000
const MAX_BLANKS = 10_000; // the library's time grows with the square of a run of white space
const UNTIMED_STEPS = 20_000; // about 400 messages, or 10 ms; a busy machine must not make them an attack
const MAX_ITEMS = 10_000; // of a list: the library needs some 5 µs an item even for an empty loop

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

/** Stands in for an expression that has been evaluated. */
function evaluated(value: Value): Node {
  return { type: "Evaluated", value };
}

class BoundedInterpreter extends Interpreter implements TreeInterpreter {
  readonly #options: RenderOptions;
  readonly #deadline: number;
  readonly #literals = new Map<string, Value>();
  #steps = 0;

  constructor(scope: Scope, options: RenderOptions) {
    super(scope);
    this.#options = options;
    this.#deadline = performance.now() + options.limits.time;
  }

  /** The variables that every template has. */
  globals(): Record<string, unknown> {
    return {
      true: true,
      True: true,
      false: false,
      False: false,
      none: null,
      None: null,
      raise_exception: (message: unknown) => {
        throw new ChatTemplateError(`chat template: ${message}`);
      },
      range: (...bounds: unknown[]) => range(bounds),
      strftime_now: (format: unknown) => strftime(this.#options.now, String(format)),
    };
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    this.#work(1);
    const value = (node === undefined ? undefined : this.#special(node, scope)) ?? super.evaluate(node, scope);
    this.#checkSize(value);
    return value;
  }

  /** Counts work done: a node is one step, a long value more. The clock is asked only after what any honest chat needs. */
  #work(steps: number): void {
    const before = this.#steps;
    this.#steps += steps;
    const { limits } = this.#options;
    if (this.#steps > limits.steps) throw this.#exceeded(`${limits.steps} steps`);
    const due = this.#steps > UNTIMED_STEPS && Math.floor(before / 64) !== Math.floor(this.#steps / 64);
    if (due && performance.now() > this.#deadline) throw this.#exceeded(`${limits.time} ms`);
  }

  #checkSize(value: Value): void {
    const text = typeof value.value === "string" ? value.value.length : 0;
    const items = Array.isArray(value.value) ? value.value.length : 0;
    this.#checkLength(text);
    if (items > MAX_ITEMS) throw this.#exceeded(`${MAX_ITEMS} items`);
    this.#work(Math.floor(text / 1024) + items);
  }

  #checkLength(length: number): void {
    if (length > this.#options.limits.length) throw this.#exceeded(`${this.#options.limits.length} characters`);
  }

  #exceeded(limit: string): ChatTemplateError {
    return new ChatTemplateError(`chat template: passed the limit of ${limit}; use another template or fewer messages`);
  }

  /** The value of a node that Python has otherwise than the library, or undefined. */
  #special(node: Node, scope: Scope): Value | undefined {
    switch (node.type) {
      case "Evaluated":
        return node.value as Value; // made by evaluated()
      case "Print":
        return this.#printed(this.#child(node, "expression", scope));
      case "StringLiteral":
        return this.#literal(String(node.value));
      case "TupleLiteral":
        return super.evaluate({ ...node, type: "ArrayLiteral" }, scope); // the library unpacks lists only
      case "BinaryExpression":
        return this.#binary(node, scope);
      case "MemberExpression":
        return this.#member(node, scope);
      case "CallExpression":
        return this.#call(node, scope);
      case "FilterExpression":
        return this.#filter(node, scope);
      case "For":
        return this.#for(node, scope);
      default:
        return undefined;
    }
  }

  /** One of the template's own strings, as `options.literal` changes it. */
  #literal(text: string): Value | undefined {
    const change = this.#options.literal;
    if (change === undefined) return undefined;
    const known = this.#literals.get(text);
    if (known !== undefined) return known;
    const value = toValue(change(text));
    this.#literals.set(text, value);
    return value;
  }

  #printed(value: Value): Value {
    return value.type === "StringValue" ? value : toValue(this.#print(value));
  }

  #print(value: Value): string {
    const text = print(value);
    this.#checkLength(text.length);
    return text;
  }

  #child(node: Node, field: string, scope: Scope): Value {
    const child = node[field];
    return this.evaluate(isNode(child) ? child : undefined, scope);
  }

  #binary(node: Node, scope: Scope): Value | undefined {
    const operator = isNode(node.operator) ? String(node.operator.value) : "";
    if (!["~", "+", "*", "%", "==", "!=", "<", ">", "<=", ">="].includes(operator)) return undefined;
    const left = this.#child(node, "left", scope);
    const right = this.#child(node, "right", scope);
    const value = this.#operate(operator, left, right);
    return value ?? super.evaluate({ ...node, left: evaluated(left), right: evaluated(right) }, scope);
  }

  #operate(operator: string, left: Value, right: Value): Value | undefined {
    if (operator === "==" || operator === "!=") return toValue(equal(left, right) === (operator === "=="));
    if (operator === "~") return toValue(this.#print(left) + this.#print(right));
    const [a, b] = [textOf(left), textOf(right)];
    if (operator === "%") {
      const [x, y] = [numberOf(left), numberOf(right)];
      return x === undefined || y === undefined || y === 0 ? undefined : toValue(((x % y) + y) % y);
    }
    if (operator === "*") {
      const [text, times] = a === undefined ? [b, numberOf(left)] : [a, numberOf(right)];
      if (text === undefined || times === undefined) return undefined;
      this.#checkLength(text.length * times);
      return toValue(text.repeat(Math.max(0, times)));
    }
    if (a !== undefined && b !== undefined && operator !== "+") {
      const [x, y] = operator === "<" || operator === ">=" ? [a, b] : [b, a];
      return toValue(operator.length === 1 ? x < y : x >= y);
    }
    if (operator === "+" && (a === undefined) !== (b === undefined)) {
      throw new ChatTemplateError(
        `chat template: adds ${typeName(left)} and ${typeName(right)}, expected two texts; check that content is a string`,
      );
    }
    return undefined;
  }

  #member(node: Node, scope: Scope): Value | undefined {
    const object = this.#child(node, "object", scope);
    const text = textOf(object);
    const rest = { ...node, object: evaluated(object) };
    const { property } = node;
    if (object.type === "UndefinedValue") {
      throw new ChatTemplateError("chat template: looks into a value that is not defined; check the messages' fields");
    }
    if (!isNode(property) || property.type === "SliceExpression") return super.evaluate(rest, scope);
    if (node.computed !== true) {
      const name = String(property.value);
      const method =
        entriesOf(object) !== undefined && MAPPING_METHODS.has(name) ? object.builtins.get(name) : undefined;
      return method ?? super.evaluate(rest, scope);
    }
    const key = this.evaluate(property, scope);
    const index = numberOf(key);
    if (text !== undefined && index !== undefined) return toValue(Array.from(text).at(index));
    return super.evaluate({ ...rest, property: evaluated(key) }, scope);
  }

  /** A loop, which may also be over the characters of a text. */
  #for(node: Node, scope: Scope): Value | undefined {
    const { iterable } = node;
    const filtered = isNode(iterable) && iterable.type === "SelectExpression" && isNode(iterable.lhs);
    const source = this.#child(filtered ? iterable : node, filtered ? "lhs" : "iterable", scope);
    const text = textOf(source);
    const items = evaluated(text === undefined ? source : toValue(Array.from(text)));
    return super.evaluate({ ...node, iterable: filtered ? { ...iterable, lhs: items } : items }, scope);
  }

  /** A list of values that exist already. */
  #list(items: readonly Value[], scope: Scope): Value {
    return super.evaluate({ type: "ArrayLiteral", value: items.map(evaluated) }, scope);
  }

  /** `dict(key=value)`, which the library does not know. */
  #dict(args: unknown, scope: Scope): Value | undefined {
    const pairs = (Array.isArray(args) ? args : []).map((node: unknown): [Node, unknown] | undefined => {
      const isPair = isNode(node) && node.type === "KeywordArgumentExpression" && isNode(node.key);
      return isPair && isNode(node.key) ? [{ type: "StringLiteral", value: node.key.value }, node.value] : undefined;
    });
    const known = pairs.filter((pair) => pair !== undefined);
    return known.length < pairs.length
      ? undefined
      : super.evaluate({ type: "ObjectLiteral", value: new Map(known) }, scope);
  }

  #call(node: Node, scope: Scope): Value | undefined {
    const { callee } = node;
    if (isNode(callee) && callee.type === "Identifier" && callee.value === "dict") return this.#dict(node.args, scope);
    if (!isNode(callee) || callee.type !== "MemberExpression" || callee.computed === true || !isNode(callee.property)) {
      return undefined;
    }
    const name = String(callee.property.value);
    const object = this.#child(callee, "object", scope);
    const text = textOf(object);
    const given = text === undefined ? undefined : this.#arguments(node.args, scope);
    if (text !== undefined && given !== undefined) {
      const value = this.#method(name, text, given);
      if (value !== undefined) return value;
      if (!object.builtins.has(name)) throw notSupported(`.${name}() of a text`);
    } else if (entriesOf(object) !== undefined && !entriesOf(object)?.has(name) && !object.builtins.has(name)) {
      throw notSupported(`.${name}() of a mapping`);
    } else if (itemsOf(object) !== undefined) throw notSupported(`.${name}() of a list`);
    return super.evaluate({ ...node, callee: { ...callee, object: evaluated(object) } }, scope);
  }

  /** The arguments of a call, or undefined where they are unpacked from a list or a mapping. */
  #arguments(nodes: unknown, scope: Scope): Arguments | undefined {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of Array.isArray(nodes) ? nodes.filter(isNode) : []) {
      if (node.type === "SpreadExpression" || node.type === "KeywordSpreadExpression") return undefined;
      if (node.type !== "KeywordArgumentExpression") positional.push(this.evaluate(node, scope));
      else named.set(isNode(node.key) ? String(node.key.value) : "", this.#child(node, "value", scope));
    }
    return (position, name) => positional[position] ?? (name === undefined ? undefined : named.get(name));
  }

  #method(name: string, text: string, given: Arguments): Value | undefined {
    const first = textOf(given(0));
    switch (name) {
      case "strip":
      case "lstrip":
      case "rstrip":
        return toValue(
          strip(text, textOf(given(0, "chars")), name === "strip" ? "both" : name === "lstrip" ? "left" : "right"),
        );
      case "split":
      case "rsplit":
        return toValue(split(text, textOf(given(0, "sep")), numberOf(given(1, "maxsplit")) ?? -1, name === "rsplit"));
      case "splitlines":
        return toValue(lines(text));
      case "title":
        return toValue(title(text));
      case "capitalize":
        return toValue(capitalize(text));
      case "join": {
        const items = itemsOf(given(0));
        return items === undefined ? undefined : this.#join(items, text);
      }
      case "replace":
        return this.#replace(text, first, textOf(given(1)), numberOf(given(2, "count")) ?? -1);
      case "find":
        return first === undefined ? undefined : toValue(codePoints(text, text.indexOf(first)));
      case "rfind":
        return first === undefined ? undefined : toValue(codePoints(text, text.lastIndexOf(first)));
      case "count":
        return first === undefined || first === "" ? undefined : toValue(text.split(first).length - 1);
      case "removeprefix":
        return first === undefined ? undefined : toValue(text.startsWith(first) ? text.slice(first.length) : text);
      case "removesuffix":
        return first === undefined
          ? undefined
          : toValue(text.endsWith(first) ? text.slice(0, text.length - first.length) : text);
      case "isdigit":
        return toValue(/^\p{Nd}+$/u.test(text));
      case "isalpha":
        return toValue(/^\p{L}+$/u.test(text));
      case "isspace":
        return toValue(text !== "" && strip(text, undefined, "both") === "");
      default:
        return undefined;
    }
  }

  #join(items: readonly Value[], separator: string): Value {
    const parts = items.map((item) => print(item));
    this.#checkLength(parts.reduce((sum, part) => sum + part.length + separator.length, -separator.length));
    return toValue(parts.join(separator));
  }

  #replace(text: string, from: string | undefined, to: string | undefined, most: number): Value | undefined {
    if (from === undefined || to === undefined) return undefined;
    const parts = from === "" ? ["", ...Array.from(text), ""] : text.split(from);
    const count = most < 0 ? parts.length - 1 : Math.min(most, parts.length - 1);
    this.#checkLength(text.length + count * (to.length - from.length));
    const head = parts.slice(0, count + 1).join(to);
    return toValue([head, ...parts.slice(count + 1)].join(from));
  }

  #filter(node: Node, scope: Scope): Value | undefined {
    const { filter } = node;
    if (!isNode(filter)) return undefined;
    const call = filter.type === "CallExpression" && isNode(filter.callee) ? filter : undefined;
    const name = String(call === undefined ? filter.value : isNode(call.callee) ? call.callee.value : "");
    const operand = this.#child(node, "operand", scope);
    const given = this.#arguments(call?.args, scope);
    const items = itemsOf(operand);
    const selects = name === "selectattr" || name === "rejectattr";
    if (selects && items !== undefined && given !== undefined && textOf(given(1)) === "undefined") {
      const wanted = name === "selectattr"; // the library takes a missing attribute for one that fails every test
      const missing = (item: Value) => !entriesOf(item)?.has(textOf(given(0)) ?? "");
      return this.#list(
        items.filter((item) => missing(item) === wanted),
        scope,
      );
    }
    const value = given === undefined ? undefined : this.#filtered(name, operand, given);
    return value ?? super.evaluate({ ...node, operand: evaluated(operand) }, scope);
  }

  #filtered(name: string, operand: Value, given: Arguments): Value | undefined {
    if (name === "string") return toValue(this.#print(operand));
    if (name === "tojson") this.#checkLength((numberOf(given(0, "indent")) ?? 0) * MIN_INDENT_SHARE);
    const items = itemsOf(operand);
    if (name === "join" && items !== undefined && given(1, "attribute") === undefined) {
      return this.#join(items, textOf(given(0, "d")) ?? "");
    }
    if (name === "count" && items !== undefined) return toValue(items.length);
    const text = TAKES_ANY.has(name) ? this.#print(operand) : textOf(operand);
    if (text === undefined) return undefined;
    switch (name) {
      case "upper":
        return toValue(text.toUpperCase());
      case "lower":
        return toValue(text.toLowerCase());
      case "title":
        return toValue(title(text));
      case "trim":
        return toValue(strip(text, textOf(given(0, "chars")), "both"));
      case "length":
      case "count":
        return toValue(codePoints(text, text.length));
      case "list":
        return toValue(Array.from(text));
      case "first":
        return toValue(Array.from(text)[0]);
      case "last":
        return toValue(Array.from(text).at(-1));
      case "capitalize":
        return toValue(capitalize(text));
      case "replace":
        return this.#replace(text, textOf(given(0, "old")), textOf(given(1, "new")), numberOf(given(2, "count")) ?? -1);
      case "indent": {
        const width = given(0, "width");
        const by = numberOf(width) ?? 4;
        this.#checkLength(text.split("\n").length * (textOf(width)?.length ?? by));
        const flag = (value: Value | undefined) => value?.value === true;
        return toValue(
          indent(text, textOf(width) ?? " ".repeat(Math.max(0, by)), flag(given(1, "first")), flag(given(2, "blank"))),
        );
      }
      case "e":
      case "escape":
        return toValue(text.replace(/[&<>'"]/g, (character) => `&${HTML[character]};`));
      default:
        return undefined;
    }
  }
}

/** An argument by its position, or by its name. */
type Arguments = (position: number, name?: string) => Value | undefined;

/** Filters that print a value which is no text first. */
const TAKES_ANY: ReadonlySet<string> = new Set("capitalize e escape lower replace title trim upper".split(" "));
const MAPPING_METHODS: ReadonlySet<string> = new Set(["items", "keys", "values", "get"]);
const MIN_INDENT_SHARE = 4096; // an indent of 256 then already reaches the limit of 1 MiB
const HTML: Readonly<Record<string, string>> = { "&": "amp", "<": "lt", ">": "gt", "'": "#39", '"': "#34" };

function notSupported(what: string): UnsupportedModelError {
  return new UnsupportedModelError(`chat template: ${what} is not supported; pass another template`);
}

function typeName(value: Value): string {
  return value.type.replace("Value", "").toLowerCase();
}

/** How many code points there are before an index of UTF-16 units; -1 stays -1. */
function codePoints(text: string, index: number): number {
  let count = index;
  for (let i = 0; i + 1 < index; i++) if ((text.codePointAt(i) ?? 0) > 0xffff) count--;
  return count;
}

/** Python's range(), of at most 10,000 numbers. */
function range(bounds: readonly unknown[]): number[] {
  const numbers = bounds.map((bound) => {
    if (typeof bound !== "number" || !Number.isInteger(bound)) {
      throw new ChatTemplateError(`chat template: range() was given ${String(bound)}, expected whole numbers`);
    }
    return bound;
  });
  const [start = 0, stop = 0, step = 1] = numbers.length === 1 ? [0, ...numbers] : numbers;
  if (step === 0) throw new ChatTemplateError("chat template: range() was given a step of 0, expected another");
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_ITEMS) {
    throw new ChatTemplateError(`chat template: range() of ${count} numbers, at most ${MAX_ITEMS} are allowed`);
  }
  return Array.from({ length: count }, (_, i) => start + i * step);
}
