/**
 * From tokens back to text, token by token: the decoders of Rust `tokenizers` as a pipe that can be fed one token at a time.
 *
 * There is no second path for whole texts: decoding many ids is feeding them and then ending the pipe, so that the pieces of a
 * stream join to the whole by construction. A stage holds back what a later token could still change: the bytes of a character
 * that is not whole, a space that may be stripped. Source: decoders/ of huggingface/tokenizers 0.23.
 */
import { UnsupportedModelError } from "../errors.ts";
import { decodeBytes } from "./byteAlphabet.ts";
import { fieldError, type JsonObject, listAt, objectAt, stringAt } from "./json.ts";
import { libraryTokenizer } from "./library.ts";
import { checkedPattern, replaceAll } from "./tokenizerRewrite.ts";

/** One decoder of the chain. Both methods return the tokens, or pieces of one, that are settled now. */
interface Stage {
  push(token: string): string[];
  end(): string[];
}

/** How a stage treats the beginning of a text: as decoding does, or, for showing a single token, keeping its space. */
type Beginning = "strip" | "keep";

/** Makes one stage of a new pipe. */
type StageMaker = (beginning: Beginning) => Stage;

/** A chain of stages, fed token by token; what comes out is text. */
export class DecoderPipe {
  readonly #stages: readonly Stage[];

  constructor(makers: readonly StageMaker[], beginning: Beginning) {
    this.#stages = makers.map((make) => make(beginning));
  }

  /** The text that is settled once `token` has come. */
  push(token: string): string {
    return this.#through([token], 0).join("");
  }

  /** The text that was held back. The pipe is spent. */
  end(): string {
    const texts: string[] = [];
    for (const [i, stage] of this.#stages.entries()) texts.push(...this.#through(stage.end(), i + 1));
    return texts.join("");
  }

  #through(tokens: string[], from: number): string[] {
    return this.#stages.slice(from).reduce((passing, stage) => passing.flatMap((token) => stage.push(token)), tokens);
  }
}

/** Compiles `decoder` of tokenizer.json, `cleanUp` as tokenizer_config.json's clean_up_tokenization_spaces. Throws UnsupportedModelError by name. */
export function compileDecoder(decoder: unknown, cleanUp: boolean): StageMaker[] {
  const makers: StageMaker[] = [];
  let fused = false; // from here on what passes are pieces of a single token
  const add = (value: unknown, where: string): void => {
    const config = objectAt(value, where);
    const type = stringAt(config.type, `${where}.type`);
    if (type === "Sequence") {
      for (const [i, part] of listAt(config.decoders, `${where}.decoders`).entries())
        add(part, `${where}.decoders[${i}]`);
      return;
    }
    if (type === "Fuse") fused = true;
    else {
      makers.push(stageMaker(type, config, where, fused));
      if (type === "ByteLevel") fused = true;
    }
  };
  if (decoder === null || decoder === undefined) makers.push((beginning) => spaced(beginning));
  else add(decoder, "tokenizer.json: decoder");
  if (cleanUp)
    makers.push(
      ...CLEAN_UP.map(
        ([pattern, content]) =>
          () =>
            replacePieces(pattern, content),
      ),
    );
  return makers;
}

// what transformers' clean_up_tokenization replaces, in its order
const CLEAN_UP: readonly (readonly [string, string])[] = [
  [" .", "."],
  [" ?", "?"],
  [" !", "!"],
  [" ,", ","],
  [" ' ", "'"],
  [" n't", "n't"],
  [" 'm", "'m"],
  [" 's", "'s"],
  [" 've", "'ve"],
  [" 're", "'re"],
];

function stageMaker(type: string, config: JsonObject, where: string, fused: boolean): StageMaker {
  switch (type) {
    case "ByteLevel":
      return fused ? () => whole(byteLevel()) : byteLevel;
    case "ByteFallback":
      return fused ? () => whole(byteFallback()) : byteFallback;
    case "Metaspace": {
      const replacement = stringAt(config.replacement ?? "▁", `${where}.replacement`);
      const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
      return (beginning) => metaspace(replacement, beginning === "keep" || scheme === "never", fused);
    }
    case "Strip": {
      const content = stringAt(config.content, `${where}.content`);
      const start = count(config.start, `${where}.start`);
      const stop = count(config.stop, `${where}.stop`);
      return (beginning) => strip(content, beginning === "keep" ? 0 : start, beginning === "keep" ? 0 : stop, fused);
    }
    case "Replace":
      return replaceMaker(config, where, fused);
    case "WordPiece": {
      const prefix = stringAt(config.prefix ?? "##", `${where}.prefix`);
      const cleanUp = config.cleanup !== false;
      return (beginning) => (fused ? whole : same)(wordPiece(prefix, cleanUp, beginning));
    }
    case "BPEDecoder": {
      const suffix = stringAt(config.suffix ?? "</w>", `${where}.suffix`);
      return (beginning) => (fused ? whole : same)(bpeSuffix(suffix, beginning));
    }
    default:
      throw new UnsupportedModelError(
        `${where}: ${type} is not supported; supported: BPEDecoder, ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip, WordPiece`,
      );
  }
}

function replaceMaker(config: JsonObject, where: string, fused: boolean): StageMaker {
  const pattern = objectAt(config.pattern, `${where}.pattern`);
  const content = stringAt(config.content, `${where}.content`);
  if (pattern.String !== undefined) {
    const text = stringAt(pattern.String, `${where}.pattern.String`);
    if (text === "") throw fieldError(`${where}.pattern.String`, text, "at least one character");
    return fused ? () => replacePieces(text, content) : () => each((token) => token.replaceAll(text, () => content));
  }
  const regex = checkedPattern(stringAt(pattern.Regex, `${where}.pattern.Regex`), `${where}.pattern.Regex`);
  const { normalizer } = libraryTokenizer({ normalizer: replaceAll(regex, content) });
  const make = () => each((token) => normalizer?.normalize(token) ?? token);
  return fused ? () => whole(make()) : make;
}

function count(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) throw fieldError(where, value, "a count");
  return value;
}

function same(stage: Stage): Stage {
  return stage;
}

/** A stage that treats each token by itself. */
function each(change: (token: string) => string): Stage {
  return { push: (token) => [change(token)], end: () => [] };
}

/** For a stage that must see a fused token whole: gathers its pieces and passes them on at the end. */
function whole(stage: Stage): Stage {
  let text = "";
  return {
    push: (piece) => {
      text += piece;
      return [];
    },
    end: () => [...stage.push(text), ...stage.end()],
  };
}

/** No decoder at all: tokens with a space between them. */
function spaced(beginning: Beginning): Stage {
  let first = true;
  return each((token) => {
    const text = first || beginning === "keep" ? token : ` ${token}`;
    first = false;
    return text;
  });
}

/** Characters that stand for bytes become these bytes; a token with any other character becomes its own UTF-8. */
function byteLevel(): Stage {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return {
    push: (token) => [decoder.decode(decodeBytes(token) ?? new TextEncoder().encode(token), { stream: true })],
    end: () => [decoder.decode()],
  };
}

const BYTE_TOKEN = /^<0x(\+[0-9A-Fa-f]|[0-9A-Fa-f]{2})>$/; // Rust's from_str_radix takes a plus sign

/** The one byte that a token such as `<0xE2>` stands for, or undefined. */
export function byteOfToken(token: string): Uint8Array | undefined {
  const hex = BYTE_TOKEN.exec(token)?.[1];
  return hex === undefined ? undefined : Uint8Array.of(Number.parseInt(hex, 16));
}

/**
 * Runs of `<0xE2>` tokens become characters; a run that is not UTF-8 from end to end becomes one U+FFFD a byte. So no part of a
 * run is settled before it ends.
 */
function byteFallback(): Stage {
  let run: number[] = [];
  const settle = (): string[] => {
    if (run.length === 0) return [];
    const bytes = Uint8Array.from(run);
    run = [];
    try {
      return [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)];
    } catch {
      return Array.from(bytes, () => "\uFFFD"); // the decoder's only reason to throw
    }
  };
  return {
    push: (token) => {
      const hex = BYTE_TOKEN.exec(token)?.[1];
      if (hex === undefined) return [...settle(), token];
      run.push(Number.parseInt(hex, 16));
      return [];
    },
    end: settle,
  };
}

/** `replacement` becomes a space, in the first token nothing. */
function metaspace(replacement: string, keepFirst: boolean, fused: boolean): Stage {
  let first = true;
  return each((token) => {
    const space = first && !keepFirst ? "" : " ";
    if (!fused) first = false;
    return token.replaceAll(replacement, space);
  });
}

/** Takes up to `start` of `content` from the beginning of a token and up to `stop` from its end. */
function strip(content: string, start: number, stop: number, fused: boolean): Stage {
  if (!fused) return each((token) => stripEnd(stripStart(token, content, start).text, content, stop));
  let toTake = start;
  let held = ""; // may still be the end of the token
  return {
    push: (piece) => {
      const { text, taken, done } = stripStart(piece, content, toTake);
      toTake = done ? 0 : toTake - taken;
      held += text;
      const kept = stripEnd(held, content, stop);
      const tail = held.slice(kept.length);
      held = tail;
      return kept === "" ? [] : [kept];
    },
    end: () => [stripEnd(held, content, stop)],
  };
}

function stripStart(text: string, content: string, most: number): { text: string; taken: number; done: boolean } {
  let taken = 0;
  while (taken < most && text.startsWith(content, taken * content.length)) taken++;
  const rest = text.slice(taken * content.length);
  return { text: rest, taken, done: rest !== "" || taken === most };
}

function stripEnd(text: string, content: string, most: number): string {
  let end = text.length;
  for (let i = 0; i < most && end > 0 && text.endsWith(content, end); i++) end -= content.length;
  return text.slice(0, end);
}

/** Replaces a literal text in pieces of one token, wherever the pieces are cut. */
function replacePieces(pattern: string, content: string): Stage {
  let held = ""; // ends in what may become `pattern`
  return {
    push: (piece) => {
      const parts = (held + piece).split(pattern);
      const last = parts.pop() ?? "";
      let keep = Math.min(pattern.length - 1, last.length);
      while (keep > 0 && !pattern.startsWith(last.slice(last.length - keep))) keep--;
      held = last.slice(last.length - keep);
      return [parts.map((part) => part + content).join("") + last.slice(0, last.length - keep)];
    },
    end: () => [held],
  };
}

/** A token that goes on with a word loses its prefix, any other begins with a space. */
function wordPiece(prefix: string, cleanUp: boolean, beginning: Beginning): Stage {
  let first = beginning === "strip";
  return each((token) => {
    let text = token;
    if (!first) text = text.startsWith(prefix) ? text.slice(prefix.length) : ` ${text}`;
    first = false;
    return cleanUp ? WORD_PIECE_CLEAN_UP.reduce((clean, [from, to]) => clean.replaceAll(from, to), text) : text;
  });
}

const WORD_PIECE_CLEAN_UP: readonly (readonly [string, string])[] = [
  ...CLEAN_UP.slice(0, 7),
  [" do not", " don't"],
  ...CLEAN_UP.slice(7),
];

/** A token that ends a word has a suffix, which becomes a space, at the end of the text nothing. */
function bpeSuffix(suffix: string, beginning: Beginning): Stage {
  let held: string | undefined;
  return {
    push: (token) => {
      const settled = held === undefined ? [] : [held.replaceAll(suffix, " ")];
      held = token;
      return settled;
    },
    end: () => (held === undefined ? [] : [held.replaceAll(suffix, beginning === "keep" ? " " : "")]),
  };
}
