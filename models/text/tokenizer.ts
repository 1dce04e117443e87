/**
 * The tokenizer of a checkpoint: text to ids and ids to text, equal to Rust `tokenizers` on the same tokenizer.json.
 *
 *   text ─ added tokens ─ normalizer ─ added tokens ─ pre-tokenizer ─ model ─ post-processor ─► ids ─ decoder ─► text
 *
 * Normalizers, pre-tokenizers, Unigram and WordPiece are @huggingface/tokenizers', behind the rewriting of tokenizerRewrite.ts;
 * added tokens, BPE and the decoders are ours.
 */
import type { Folder } from "../../device/files.ts";
import { type Accept, type AddedToken, addedToken, type Span, TokenFinder } from "./addedTokens.ts";
import { decodeBytes } from "./byteAlphabet.ts";
import type { WordModel } from "./bytePairs.ts";
import { byteOfToken, compileDecoder, DecoderPipe } from "./decoder.ts";
import { idAt, isObject, type JsonObject, listAt, objectAt, readJson, stringAt } from "./json.ts";
import { libraryTokenizer } from "./library.ts";
import { readPostProcessor } from "./postProcessor.ts";
import { rewriteNormalizer, rewritePreTokenizer } from "./tokenizerRewrite.ts";
import { wordModel } from "./wordModels.ts";

/** How a text becomes ids. */
export interface EncodeOptions {
  /** Whether the post-processor adds its tokens (a bos, as a rule). */
  readonly addSpecialTokens: boolean;
  /** Whether text that spells a control token becomes it, as in Hugging Face; otherwise it stays text. */
  readonly parseSpecial: boolean;
}

/** How ids become text. */
export interface DecodeOptions {
  /** Whether control tokens are left out. */
  readonly skipSpecial: boolean;
}

/** Text of a growing list of ids. The pieces and `end()`, joined, are the text of all ids, exactly. */
export interface Detokenizer {
  /** The text that is settled by one more id: whole characters only, "" while one is not whole. */
  push(id: number): string;
  /** What was held back. No id may follow. */
  end(): string;
}

/** A checkpoint's tokenizer. */
export interface Tokenizer {
  /** The ids of a text. Throws ModelFormatError where the text needs an unknown token and the vocabulary has none. */
  encode(text: string, options: EncodeOptions): number[];
  /** The ids of a text in which control tokens are parsed but for those at `plain`, which are text. Adds none. */
  encodeMarked(text: string, plain: readonly Span[]): number[];
  /** Where a text spells control tokens. */
  specialSpans(text: string): Span[];
  /** The text of a list of ids; ids that the vocabulary lacks give "". */
  decode(ids: readonly number[], options: DecodeOptions): string;
  /** A detokenizer that begins with the next id. */
  stream(options: DecodeOptions): Detokenizer;
  /** How one token is shown alone: control tokens by name, the space before a word kept. */
  tokenText(id: number): string;
  /** The bytes of a token: those of `tokenText`, or the part of a character that it holds. */
  tokenBytes(id: number): Uint8Array;
  /** Ids of control tokens. */
  readonly specialIds: ReadonlySet<number>;
  /** The spellings of control tokens. */
  readonly specialTexts: readonly string[];
  /** Named tokens of tokenizer_config.json: `bos_token`, `eos_token` and so on. */
  readonly namedTokens: ReadonlyMap<string, string>;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  /** Highest id + 1. */
  readonly size: number;
  /** The most UTF-16 units of a text that one token stands for. */
  readonly longestToken: number;
}

/**
 * Reads tokenizer.json, tokenizer_config.json and, for older folders, special_tokens_map.json; undefined without a tokenizer.json.
 * Throws ModelFormatError for broken files and UnsupportedModelError that names the component for what would encode otherwise
 * than in Rust.
 */
export async function loadTokenizer(folder: Folder): Promise<Tokenizer | undefined> {
  const file = await readJson(folder, "tokenizer.json");
  if (file === undefined) return undefined;
  const config = (await readJson(folder, "tokenizer_config.json")) ?? {};
  // As transformers: a configuration that lists its added tokens names the special ones itself.
  const complete = "added_tokens_decoder" in config;
  const map = (complete ? undefined : await readJson(folder, "special_tokens_map.json")) ?? {};
  return new JsonTokenizer(file, { ...map, ...config });
}

const NAMED = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

class JsonTokenizer implements Tokenizer {
  readonly specialIds: ReadonlySet<number>;
  readonly specialTexts: readonly string[];
  readonly namedTokens: ReadonlyMap<string, string>;
  readonly eosTokenIds: readonly number[];
  readonly bosTokenId: number | undefined;
  readonly size: number;
  readonly longestToken: number;
  readonly #tokens: ReadonlyMap<number, string>;
  readonly #finders: { raw: TokenFinder; normalized: TokenFinder; special: TokenFinder; marked: TokenFinder };
  readonly #normalize: (text: string) => string;
  readonly #preTokenize: (text: string, first: boolean) => string[];
  readonly #model: WordModel;
  readonly #around: { before: readonly number[]; after: readonly number[] };
  readonly #pipe: (beginning: "strip" | "keep") => DecoderPipe;

  constructor(file: JsonObject, config: JsonObject) {
    const modelConfig = objectAt(file.model, "tokenizer.json: model");
    const vocab = readVocab(modelConfig);
    const added = readAddedTokens(file, config, vocab);
    const special = added.filter((token) => token.special);
    const tokens = new Map(Array.from(vocab, ([content, id]) => [id, content]));
    for (const token of added) tokens.set(token.id, token.content);
    this.#tokens = tokens;
    this.size = Array.from(tokens.keys()).reduce((most, id) => Math.max(most, id), -1) + 1;
    // As a vocabulary spells a token it is never shorter than its text: a byte, or a space, is a character at least.
    this.longestToken = Array.from(tokens.values()).reduce((most, content) => Math.max(most, content.length), 1);
    this.specialTexts = special.map((token) => token.content);
    const texts = new Set(this.specialTexts);
    this.specialIds = new Set(Array.from(tokens).flatMap(([id, content]) => (texts.has(content) ? [id] : [])));

    const { normalizer, pre_tokenizer: preTokenizer } = libraryTokenizer({
      normalizer: rewriteNormalizer(file.normalizer),
      pre_tokenizer: rewritePreTokenizer(file.pre_tokenizer),
    });
    this.#normalize = (text) => normalizer?.normalize(text) ?? text;
    this.#preTokenize = (text, first) =>
      preTokenizer?.pre_tokenize(text, { section_index: first ? 0 : 1 }).filter((word) => word !== "") ?? [text];
    this.#model = wordModel(modelConfig, vocab, this.specialIds);
    this.#around = readPostProcessor(file.post_processor, "tokenizer.json: post_processor");

    const raw = added.filter((token) => !token.normalized);
    const normalized = added.filter((token) => token.normalized);
    this.#finders = {
      raw: new TokenFinder(raw),
      normalized: new TokenFinder(normalized, (token) => this.#normalize(token.content)),
      special: new TokenFinder(special),
      marked: new TokenFinder([...raw, ...normalized.filter((token) => token.special)]),
    };

    const makers = compileDecoder(file.decoder, config.clean_up_tokenization_spaces === true);
    this.#pipe = (beginning) => new DecoderPipe(makers, beginning);

    this.namedTokens = new Map(
      NAMED.flatMap((name) => {
        const content = tokenContent(config[name], `tokenizer_config.json: ${name}`);
        return content === undefined ? [] : [[name, content]];
      }),
    );
    const idOf = (name: string) => {
      const content = this.namedTokens.get(name);
      return content === undefined
        ? undefined
        : (added.find((token) => token.content === content)?.id ?? vocab.get(content));
    };
    const eos = idOf("eos_token");
    this.eosTokenIds = eos === undefined ? [] : [eos];
    this.bosTokenId = idOf("bos_token");
  }

  encode(text: string, { addSpecialTokens, parseSpecial }: EncodeOptions): number[] {
    const accept: Accept = parseSpecial ? () => true : (token) => !token.special;
    const ids = this.#encode(wellFormed(text), this.#finders.raw, accept, accept, !parseSpecial);
    return addSpecialTokens ? [...this.#around.before, ...ids, ...this.#around.after] : ids;
  }

  encodeMarked(text: string, plain: readonly Span[]): number[] {
    if (plain.length === 0) return this.encode(text, { addSpecialTokens: false, parseSpecial: true });
    const free: Accept = (token, start, end) =>
      !token.special || !plain.some((span) => span.start < end && start < span.end);
    return this.#encode(wellFormed(text), this.#finders.marked, free, (token) => !token.special, true);
  }

  specialSpans(text: string): Span[] {
    const sections = this.#finders.special.split(text, () => true);
    return sections.flatMap(({ start, end, token }) => (token === undefined ? [] : [{ start, end }]));
  }

  decode(ids: readonly number[], options: DecodeOptions): string {
    const detokenizer = this.stream(options);
    const pieces = ids.map((id) => detokenizer.push(id));
    return pieces.join("") + detokenizer.end();
  }

  stream({ skipSpecial }: DecodeOptions): Detokenizer {
    const pipe = this.#pipe("strip");
    return {
      push: (id) => {
        const token = this.#tokens.get(id);
        return token === undefined || (skipSpecial && this.specialIds.has(id)) ? "" : pipe.push(token);
      },
      end: () => pipe.end(),
    };
  }

  tokenText(id: number): string {
    const token = this.#tokens.get(id);
    if (token === undefined || this.specialIds.has(id)) return token ?? "";
    const pipe = this.#pipe("keep");
    return pipe.push(token) + pipe.end();
  }

  tokenBytes(id: number): Uint8Array {
    const text = this.tokenText(id);
    const token = this.#tokens.get(id) ?? "";
    const partial = text.includes("\uFFFD") ? (byteOfToken(token) ?? decodeBytes(token)) : undefined;
    return partial ?? new TextEncoder().encode(text);
  }

  #encode(text: string, finder: TokenFinder, accept: Accept, acceptNormalized: Accept, plain: boolean): number[] {
    const ids: number[] = [];
    for (const section of finder.split(text, accept)) {
      if (section.token !== undefined) {
        ids.push(section.token.id);
        continue;
      }
      const normalized = this.#normalize(text.slice(section.start, section.end));
      for (const part of this.#finders.normalized.split(normalized, acceptNormalized)) {
        if (part.token !== undefined) {
          ids.push(part.token.id);
          continue;
        }
        const first = section.start === 0 && part.start === 0;
        for (const word of this.#preTokenize(normalized.slice(part.start, part.end), first)) {
          for (const id of this.#model.ids(word, plain)) ids.push(id);
        }
      }
    }
    return ids;
  }
}

/** A text without half surrogate pairs, which UTF-8 can't hold. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\uFFFD");
}

function readVocab(model: JsonObject): Map<string, number> {
  const where = "tokenizer.json: model.vocab";
  const vocab = new Map<string, number>();
  if (Array.isArray(model.vocab)) {
    for (const [id, piece] of listAt(model.vocab, where).entries()) {
      vocab.set(stringAt(listAt(piece, `${where}[${id}]`)[0], `${where}[${id}][0]`), id);
    }
    return vocab;
  }
  for (const [token, id] of Object.entries(objectAt(model.vocab, where))) {
    vocab.set(token, idAt(id, `${where}[${JSON.stringify(token)}]`));
  }
  return vocab;
}

/**
 * The added tokens of tokenizer.json, and those that only tokenizer_config.json knows, as transformers adds them. A token that
 * the vocabulary lacks gets the next free id, whatever the file says: that is what Rust does, and so what models were trained with.
 */
function readAddedTokens(file: JsonObject, config: JsonObject, vocab: ReadonlyMap<string, number>): AddedToken[] {
  const tokens = new Map<string, AddedToken>();
  let next = vocab.size;
  const add = (entry: unknown, where: string): void => {
    const fields = objectAt(entry, where);
    const content = stringAt(fields.content, `${where}.content`);
    if (tokens.has(content)) return;
    const token = addedToken(fields, vocab.get(content) ?? next, where);
    next = Math.max(next, token.id + 1);
    tokens.set(content, token);
  };
  for (const [i, entry] of listAt(file.added_tokens ?? [], "tokenizer.json: added_tokens").entries()) {
    add(entry, `tokenizer.json: added_tokens[${i}]`);
  }
  const where = "tokenizer_config.json: added_tokens_decoder";
  for (const [id, entry] of Object.entries(objectAt(config.added_tokens_decoder ?? {}, where))) {
    add(entry, `${where}[${JSON.stringify(id)}]`);
  }
  return Array.from(tokens.values());
}

/** The content of a named token: a string, or an object as older files have it. */
function tokenContent(value: unknown, where: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  return stringAt(isObject(value) ? value.content : value, where);
}
