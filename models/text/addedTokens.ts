/** Added tokens: strings that are found in a text as they are, before anything splits it; most of them are control tokens. */
import { idAt, type JsonObject, stringAt } from "./json.ts";

/** One entry of `added_tokens`, with Rust's meaning of the flags. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  /** A control token: a decoder may skip it, and plain text never becomes it. */
  readonly special: boolean;
  /** Is looked for in the normalized text. */
  readonly normalized: boolean;
  /** Takes the white space on its left, on its right. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Is left alone inside a word. */
  readonly singleWord: boolean;
}

/** UTF-16 offsets [start, end) of a text. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A stretch of text: one that is an added token, or one between two of them. */
export interface Section extends Span {
  readonly token?: AddedToken;
}

/** Whether a token that was found at [start, end) counts. */
export type Accept = (token: AddedToken, start: number, end: number) => boolean;

interface Node {
  readonly next: Map<number, Node>;
  token?: AddedToken;
}

const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200C\\u200D]"; // \w of Rust's regex crate
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const WHITE_SPACE = /^\p{White_Space}$/u;

/** Reads one entry of `added_tokens`. Throws ModelFormatError. */
export function addedToken(entry: JsonObject, id: number, where: string): AddedToken {
  const special = entry.special === true;
  const normalized = entry.normalized;
  return {
    id: idAt(id, `${where}.id`),
    content: stringAt(entry.content, `${where}.content`),
    special,
    normalized: typeof normalized === "boolean" ? normalized : !special,
    lstrip: entry.lstrip === true,
    rstrip: entry.rstrip === true,
    singleWord: entry.single_word === true,
  };
}

/** Finds added tokens in a text: at each place the longest, from left to right, as Rust does. */
export class TokenFinder {
  readonly #root: Node = { next: new Map() };

  /** `spelling` says how a token is spelt in the texts to come. */
  constructor(tokens: readonly AddedToken[], spelling: (token: AddedToken) => string = (token) => token.content) {
    for (const token of tokens) this.#add(spelling(token), token);
  }

  #add(text: string, token: AddedToken): void {
    if (text === "") return;
    let node = this.#root;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      let child = node.next.get(unit);
      if (child === undefined) {
        child = { next: new Map() };
        node.next.set(unit, child);
      }
      node = child;
    }
    node.token ??= token;
  }

  /** The text as sections without gaps. Tokens that `accept` turns down are text. */
  split(text: string, accept: Accept): Section[] {
    const sections: Section[] = [];
    let done = 0;
    for (let i = 0; i < text.length; ) {
      const found = this.#longest(text, i, accept);
      if (found === undefined) {
        i++;
        continue;
      }
      const { token } = found;
      const start = token.lstrip ? whiteSpaceBefore(text, i, done) : i;
      const end = token.rstrip ? whiteSpaceAfter(text, found.end) : found.end;
      if (start > done) sections.push({ start: done, end: start });
      sections.push({ start, end, token });
      done = end;
      i = end;
    }
    if (done < text.length) sections.push({ start: done, end: text.length });
    return sections;
  }

  /** The longest accepted token that begins at `from`. */
  #longest(text: string, from: number, accept: Accept): { token: AddedToken; end: number } | undefined {
    let best: { token: AddedToken; end: number } | undefined;
    let node = this.#root.next.get(text.charCodeAt(from));
    for (let end = from + 1; node !== undefined; end++) {
      const { token } = node;
      if (token !== undefined && accept(token, from, end) && !(token.singleWord && insideWord(text, from, end))) {
        best = { token, end };
      }
      node = end < text.length ? node.next.get(text.charCodeAt(end)) : undefined;
    }
    return best;
  }
}

function insideWord(text: string, start: number, end: number): boolean {
  return (
    ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) || STARTS_WITH_WORD.test(text.slice(end, end + 2))
  );
}

function whiteSpaceBefore(text: string, from: number, stop: number): number {
  let i = from;
  while (i > stop && WHITE_SPACE.test(text.charAt(i - 1))) i--;
  return i;
}

function whiteSpaceAfter(text: string, from: number): number {
  let i = from;
  while (i < text.length && WHITE_SPACE.test(text.charAt(i))) i++;
  return i;
}
