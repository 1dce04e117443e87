/**
 * Chat templates: messages to the text and the ids that a model was trained on, with nobody's words taken for control tokens.
 *
 * Whose text is whose is known from the template's side: while it runs, every control token that it spells itself is one sealed
 * private character, and what messages, tools and arguments spell stays as it is, so that the template may trim, split or compare
 * it freely. A control token in the result that was not sealed came from content and is encoded as text, unless the template put
 * it together around a role (`'<|' + role + '|>'`), which a second rendering with other content shows.
 */
import { IngleError } from "../../device/errors.ts";
import type { Folder } from "../../device/files.ts";
import { ModelFormatError } from "../errors.ts";
import { readText } from "../weights/readJson.ts";
import type { Span } from "./addedTokens.ts";
import { type Inputs, joinParts, mapContent, parseArguments } from "./chatInputs.ts";
import { Template } from "./jinja.ts";
import type { TemplateLimits } from "./jinjaInterpreter.ts";
import { isObject, listAt, objectAt, readJson, stringAt } from "./json.ts";
import type { Message } from "./messages.ts";
import { type Seals, sealsFor, sealText, type Unsealed, unseal, unusedCharacters } from "./seals.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** The templates of a checkpoint. */
export interface ChatTemplate {
  /** Where it was found, for messages to the user. */
  readonly source: string;
  readonly main: Template;
  /** Used instead when there are tools. */
  readonly toolUse: Template | undefined;
}

/** How messages become a prompt. */
export interface ChatOptions {
  /** Whether the prompt ends where the assistant begins to speak. */
  readonly addGenerationPrompt: boolean;
  /** Whether control tokens spelt in content become them, as in Hugging Face. */
  readonly parseSpecial: boolean;
  /** JSON schemas of tools, as OpenAI's API has them. */
  readonly tools?: readonly object[];
  /** Documents for retrieval. */
  readonly documents?: readonly object[];
  /** More variables for the template. */
  readonly kwargs?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` calls now; the current time by default. */
  readonly now?: Date;
  readonly limits?: Partial<TemplateLimits>;
  /** Sees the text before it is encoded, which takes longer than rendering it, and may refuse it. */
  readonly onText?: (text: string) => void;
}

/** A prompt. `ids` are those of `text`, but for control tokens spelt in content. */
export interface EncodedChat {
  readonly text: string;
  readonly ids: number[];
}

const LIMITS: TemplateLimits = { steps: 1_000_000, time: 100, length: 2 ** 20 };

/** The template of chat_template.jinja, else of tokenizer_config.json, or undefined. Throws ModelFormatError, UnsupportedModelError. */
export async function loadChatTemplate(folder: Folder): Promise<ChatTemplate | undefined> {
  const file = await readText(folder, "chat_template.jinja");
  if (file !== undefined) return chatTemplate("chat_template.jinja", file);
  const config = await readJson(folder, "tokenizer_config.json");
  const value = config?.chat_template;
  const where = "tokenizer_config.json: chat_template";
  if (value === undefined || value === null) return undefined;
  if (!Array.isArray(value)) return chatTemplate(where, stringAt(value, where));
  const named = new Map(
    listAt(value, where).map((entry, i) => {
      const fields = objectAt(entry, `${where}[${i}]`);
      return [stringAt(fields.name, `${where}[${i}].name`), stringAt(fields.template, `${where}[${i}].template`)];
    }),
  );
  const main = named.get("default") ?? named.get("tool_use");
  if (main === undefined) {
    const names = Array.from(named.keys()).join(", ");
    throw new ModelFormatError(
      "FIELD",
      `${where}: has templates named ${names || "nothing"}, expected one named default`,
    );
  }
  return chatTemplate(where, main, named.get("tool_use"));
}

/** A chat template from its text. Throws UnsupportedModelError that names the construct which can't be run. */
export function chatTemplate(source: string, main: string, toolUse?: string): ChatTemplate {
  return {
    source,
    main: new Template(main, source),
    toolUse: toolUse === undefined ? undefined : new Template(toolUse, `${source} (tool_use)`),
  };
}

/**
 * The prompt for some messages.
 *
 * Where no content spells a control token, text and ids are those of Hugging Face's `apply_chat_template`: no bos is added to
 * what the template writes. Throws ChatTemplateError with the template's own words where it refuses the messages.
 */
export function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly Message[],
  options: ChatOptions,
): EncodedChat {
  const rendering = new Rendering(tokenizer, template, messages, options);
  if (options.parseSpecial || !rendering.mayForge()) {
    const text = rendering.plain();
    options.onText?.(text);
    return { text, ids: tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: true }) };
  }
  const { text, forged } = rendering.marked();
  options.onText?.(text);
  return { text, ids: tokenizer.encodeMarked(text, forged) };
}

/** One conversation on its way through a template, rendered in the ways that show whose text is whose. */
class Rendering {
  readonly #tokenizer: Tokenizer;
  readonly #template: Template;
  readonly #options: ChatOptions;
  readonly #inputs: Inputs;
  readonly #limits: TemplateLimits;
  readonly #now: Date;

  constructor(tokenizer: Tokenizer, template: ChatTemplate, messages: readonly Message[], options: ChatOptions) {
    this.#tokenizer = tokenizer;
    this.#options = options;
    const { tools, documents, kwargs = {} } = options;
    this.#template = tools !== undefined && tools.length > 0 ? (template.toolUse ?? template.main) : template.main;
    this.#inputs = { messages, tools: tools ?? null, documents: documents ?? null, kwargs };
    this.#now = options.now ?? new Date();
    const given = this.#strings().reduce((sum, text) => sum + text.length, 0);
    const time = Math.max(LIMITS.time, messages.length); // a long chat is no attack: a message takes 0.1 ms
    this.#limits = { ...LIMITS, time, length: LIMITS.length + 2 * given, ...options.limits };
    this.#inputs = this.#fit(this.#inputs);
  }

  /** Whether content holds a character with which a control token begins or ends: without one it can't spell any. */
  mayForge(): boolean {
    const edges = this.#edges();
    return this.#strings().some((text) => Array.from(text).some((character) => edges.has(character)));
  }

  /** The text as Hugging Face renders it. */
  plain(): string {
    return this.#render(this.#inputs);
  }

  /** The text, and where content spells control tokens in it. */
  marked(): { text: string; forged: Span[] } {
    const seals = sealsFor(this.#tokenizer, this.#strings());
    const result = unseal(this.#render(this.#inputs, seals), seals);
    const open = this.#unsealed(result);
    return { text: result.text, forged: open.length === 0 ? [] : this.#notComposed(result.text, open, seals) };
  }

  /**
   * Of control tokens that were not sealed, those that the template did not put together itself.
   *
   * A second rendering, in which content has no character that a control token begins or ends with, holds only the template's.
   * Where it is the same text otherwise, places decide. Where the template took another way, numbers do: a token that comes as
   * often as without content's characters is the template's, one that comes more often is not trusted anywhere.
   */
  #notComposed(text: string, open: readonly Span[], seals: Seals): Span[] {
    const edges = this.#edges();
    const mask = unusedCharacters(0xe000, 0xf8ff, this.#strings(), 1)[0] ?? "\uFFFF";
    const hide = (content: string) =>
      Array.from(content, (character) => (edges.has(character) ? mask : character)).join("");
    const other = this.#tryRender(mapContent(this.#inputs, hide), seals);
    if (other === undefined) return [...open];
    const spelt = (span: Span) => text.slice(span.start, span.end);
    if (differsOnlyBy(text, other.text, mask)) {
      return open.filter((span) => spelt(span) !== other.text.slice(span.start, span.end));
    }
    const own = counts(this.#unsealed(other).map((span) => other.text.slice(span.start, span.end)));
    const all = counts(open.map(spelt));
    return open.filter((span) => all.get(spelt(span)) !== own.get(spelt(span)));
  }

  /** The control tokens in a text that were not sealed. */
  #unsealed({ text, sealed }: Unsealed): Span[] {
    const own = new Map(sealed.map((span) => [span.start, span.end]));
    return this.#tokenizer.specialSpans(text).filter((span) => own.get(span.start) !== span.end);
  }

  #tryRender(inputs: Inputs, seals: Seals): Unsealed | undefined {
    try {
      return unseal(this.#render(inputs, seals), seals);
    } catch (error) {
      if (error instanceof IngleError) return undefined; // it refuses the changed content: that shows nothing
      throw error;
    }
  }

  #render(inputs: Inputs, seals?: Seals): string {
    const seal = (text: string) => (seals === undefined ? text : sealText(text, this.#tokenizer, seals));
    const { messages, tools, documents, kwargs } = inputs;
    const named = Object.fromEntries(
      Array.from(this.#tokenizer.namedTokens, ([name, content]) => [name, seal(content)]),
    );
    const add_generation_prompt = this.#options.addGenerationPrompt;
    return this.#template.render(
      { ...named, ...kwargs, messages, tools, documents, add_generation_prompt },
      { limits: this.#limits, now: this.#now, ...(seals === undefined ? {} : { literal: seal }) },
    );
  }

  /**
   * The messages in the shape that the template takes: arguments of tool calls as objects or as text, parts of content as a list
   * or joined by newlines. The first shape that renders, with the parts' text in it, is taken.
   */
  #fit(inputs: Inputs): Inputs {
    const { messages } = inputs;
    const hasParts = messages.some((message) => isObject(message) && Array.isArray(message.content));
    const hasCalls = messages.some((message) => isObject(message) && Array.isArray(message.tool_calls));
    if (!hasParts && !hasCalls) return inputs;
    const calls = hasCalls ? [parseArguments, (message: object) => message] : [(message: object) => message];
    const parts = hasParts && !this.#takesParts() ? [joinParts] : [(message: object) => message];
    const shapes = parts.flatMap((part) =>
      calls.map((call) => ({ ...inputs, messages: messages.map(call).map(part) })),
    );
    const fitting = shapes.find((shape) => {
      try {
        this.#render(shape);
        return true;
      } catch {
        return false; // the next shape may render; if none does, the first one's error is reported
      }
    });
    return fitting ?? shapes[0] ?? inputs;
  }

  /** Whether the template walks over parts of content, found by trying. */
  #takesParts(): boolean {
    const probe = "probe7f3a";
    try {
      const content = [{ type: "text", text: probe }];
      const text = this.#render({ messages: [{ role: "user", content }], tools: null, documents: null, kwargs: {} });
      return text.includes(probe) && !/['"]text['"]/.test(text);
    } catch {
      return false; // it can't even be tried with parts
    }
  }

  /** The first and last characters of control tokens. */
  #edges(): Set<string> {
    return new Set(
      this.#tokenizer.specialTexts.flatMap((text) => [Array.from(text)[0] ?? "", Array.from(text).at(-1) ?? ""]),
    );
  }

  /** Every text that did not come with the model. */
  #strings(): string[] {
    const found: string[] = [];
    mapContent(this.#inputs, (text) => {
      found.push(text);
      return text;
    });
    return found;
  }
}

/** How often each text comes. */
function counts(texts: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  for (const text of texts) found.set(text, (found.get(text) ?? 0) + 1);
  return found;
}

/** Whether two texts are equal but for places where the second has `mask`. */
function differsOnlyBy(text: string, other: string, mask: string): boolean {
  if (text.length !== other.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== other[i] && other[i] !== mask) return false;
  }
  return true;
}

const TAKEN: ReadonlySet<string> = new Set(["messages", "tools", "documents", "add_generation_prompt", "namespace"]);

/** Throws TypeError for variables that the template may not be given: names that ingle sets itself, and what is no name. */
export function checkKwargs(kwargs: Readonly<Record<string, unknown>>): void {
  for (const name of Object.keys(kwargs)) {
    if (TAKEN.has(name)) throw new TypeError(`chatTemplateKwargs.${name}: is set by ingle, expected another name`);
    if (!/^[A-Za-z_]\w*$/.test(name))
      throw new TypeError(`chatTemplateKwargs: ${JSON.stringify(name)} is no name of a variable`);
  }
}
