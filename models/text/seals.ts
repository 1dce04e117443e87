/** Seals: private characters that stand for control tokens while a template runs, so that it shows which ones are its own. */
import type { Span } from "./addedTokens.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Control tokens and the private characters that stand for them while a template runs. */
export interface Seals {
  readonly to: ReadonlyMap<string, string>;
  readonly from: ReadonlyMap<string, string>;
}

/** Seals for all control tokens, of characters that none of the texts holds. */
export function sealsFor(tokenizer: Tokenizer, texts: readonly string[]): Seals {
  const contents = Array.from(new Set(tokenizer.specialTexts));
  const characters = unusedCharacters(0x100000, 0x10fffd, texts, contents.length);
  const entries = contents.map((content, i): [string, string] => [content, characters[i] ?? content]);
  return { to: new Map(entries), from: new Map(entries.map(([content, character]) => [character, content])) };
}

/** `count` characters of a private area that none of the texts holds. */
export function unusedCharacters(first: number, last: number, texts: readonly string[], count: number): string[] {
  const used = new Set(texts.flatMap((text) => Array.from(text.matchAll(/\p{Co}/gu), (match) => match[0])));
  const free: string[] = [];
  for (let code = first; code <= last && free.length < count; code++) {
    const character = String.fromCodePoint(code);
    if (!used.has(character)) free.push(character);
  }
  return free;
}

/** A text with each control token in it as its private character. */
export function sealText(text: string, tokenizer: Tokenizer, seals: Seals): string {
  let sealed = "";
  let done = 0;
  for (const { start, end } of tokenizer.specialSpans(text)) {
    const token = text.slice(start, end);
    sealed += text.slice(done, start) + (seals.to.get(token) ?? token);
    done = end;
  }
  return sealed + text.slice(done);
}

/** A text with control tokens spelt again, and where they are. */
export interface Unsealed {
  readonly text: string;
  readonly sealed: readonly Span[];
}

/** A sealed text as it reads, and where the seals were. */
export function unseal(text: string, seals: Seals): Unsealed {
  const pieces: string[] = [];
  const sealed: Span[] = [];
  let length = 0;
  for (const character of text) {
    const token = seals.from.get(character);
    const piece = token ?? character;
    if (token !== undefined) sealed.push({ start: length, end: length + token.length });
    pieces.push(piece);
    length += piece.length;
  }
  return { text: pieces.join(""), sealed };
}
