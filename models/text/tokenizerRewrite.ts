/**
 * What @huggingface/tokenizers reads otherwise than Rust `tokenizers`, rewritten into what it reads alike, or refused by name.
 *
 * It is used for normalizers, pre-tokenizers and their patterns. Measured against 0.2.0 and Rust 0.23: `Digits` knows ASCII only,
 * `Contiguous` and `MergedWith…` act as `Isolated`, a `Split` by a literal keeps what it should remove, `Metaspace` does not split,
 * `\s` and `\w` of the built-in patterns are JavaScript's, a replacement's `$` is JavaScript's.
 */
import { UnsupportedModelError } from "../errors.ts";
import { describe, fieldError, isObject, type JsonObject, listAt, objectAt, stringAt } from "./json.ts";

// Rust: pre_tokenizers/byte_level.rs
const BYTE_LEVEL = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const PUNCTUATION = "[\\p{P}\\x21-\\x2F\\x3A-\\x40\\x5B-\\x60\\x7B-\\x7E]";
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}"; // \w of Rust's regex crate

/** The normalizer for @huggingface/tokenizers, or null. Throws UnsupportedModelError, ModelFormatError. */
export function rewriteNormalizer(value: unknown, where = "tokenizer.json: normalizer"): JsonObject | null {
  if (value === null || value === undefined) return null;
  const config = objectAt(value, where);
  const type = stringAt(config.type, `${where}.type`);
  switch (type) {
    case "Sequence": {
      const parts = listAt(config.normalizers, `${where}.normalizers`);
      return normalizers(
        ...parts.map((part, i) => rewriteNormalizer(part, `${where}.normalizers[${i}]`)).filter(isObject),
      );
    }
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
    case "StripAccents":
      return { type };
    case "Lowercase": // JavaScript's lower case of a final Σ depends on what stands before it
      return normalizers(replaceAll("Σ", "σ"), { type });
    case "Strip":
      return normalizers(
        ...(config.strip_left === false ? [] : [replaceAll("\\A\\s+", "")]),
        ...(config.strip_right === false ? [] : [replaceAll("\\s+\\z", "")]),
      );
    case "Prepend":
      return replaceAll("\\A(?=[\\s\\S])", stringAt(config.prepend, `${where}.prepend`));
    case "Replace":
      return replaceAll(pattern(config.pattern, where), stringAt(config.content, `${where}.content`));
    default:
      throw unsupported(
        where,
        type,
        "Lowercase, NFC, NFD, NFKC, NFKD, Prepend, Replace, Sequence, Strip, StripAccents",
      );
  }
}

/** The pre-tokenizer for @huggingface/tokenizers, or null. Throws UnsupportedModelError, ModelFormatError. */
export function rewritePreTokenizer(value: unknown, where = "tokenizer.json: pre_tokenizer"): JsonObject | null {
  if (value === null || value === undefined) return null;
  const config = objectAt(value, where);
  const type = stringAt(config.type, `${where}.type`);
  switch (type) {
    case "Sequence": {
      const parts = listAt(config.pretokenizers, `${where}.pretokenizers`);
      return preTokenizers(
        ...parts
          .map((part, i) => {
            const at = `${where}.pretokenizers[${i}]`;
            if (i > 0 && isFirstMetaspace(part)) {
              throw new UnsupportedModelError(
                `${at}: Metaspace with prepend_scheme "first" is supported only as the first of a Sequence`,
              );
            }
            return rewritePreTokenizer(part, at);
          })
          .filter(isObject),
      );
    }
    case "ByteLevel": {
      const split = config.use_regex === false ? [] : [isolated(BYTE_LEVEL)];
      const space = config.add_prefix_space === false ? [] : [replaceAll("\\A(?=[^ ])", " ")];
      return preTokenizers(...space, ...split, { type, add_prefix_space: false, use_regex: false });
    }
    case "Digits":
      return isolated(config.individual_digits === true ? "\\p{N}" : "\\p{N}+");
    case "Metaspace":
      return metaspace(config, where);
    case "Split":
      return split(pattern(config.pattern, where), config.behavior, config.invert === true, where);
    case "Punctuation":
      return split(PUNCTUATION, config.behavior ?? "Isolated", false, where);
    case "Whitespace":
      return matches(`[${WORD}]+|[^${WORD}\\s]+`);
    case "WhitespaceSplit":
      return matches("\\S+");
    case "BertPreTokenizer":
      return preTokenizers(matches("\\S+"), isolated(PUNCTUATION));
    case "CharDelimiterSplit":
      return split(escaped(stringAt(config.delimiter, `${where}.delimiter`)), "Removed", false, where);
    case "FixedLength": {
      const length = config.length;
      if (typeof length !== "number" || !Number.isInteger(length) || length < 1) {
        throw fieldError(`${where}.length`, length, "a count above 0");
      }
      return matches(`[\\s\\S]{1,${length}}`);
    }
    default:
      throw unsupported(
        where,
        type,
        "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, Sequence, Split, Whitespace, WhitespaceSplit",
      );
  }
}

function unsupported(where: string, type: string, supported: string): UnsupportedModelError {
  return new UnsupportedModelError(`${where}: ${type} is not supported; supported: ${supported}`);
}

function normalizers(...parts: readonly JsonObject[]): JsonObject {
  return { type: "Sequence", normalizers: parts };
}

function preTokenizers(...parts: readonly JsonObject[]): JsonObject {
  return { type: "Sequence", pretokenizers: parts };
}

/** A Replace by a plain text, which both a normalizer and (in the library only) a pre-tokenizer can be. */
export function replaceAll(regex: string, content: string): JsonObject {
  return { type: "Replace", pattern: { Regex: regex }, content: content.replaceAll("$", "$$$$") };
}

/** Splits into matches and what is between them. */
function isolated(regex: string): JsonObject {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

/** Splits into matches and drops what is between them. */
function matches(regex: string): JsonObject {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Removed", invert: true };
}

/** A Split with Rust's five behaviours; `invert` takes the text between matches for the matches. */
function split(regex: string, behavior: unknown, invert: boolean, where: string): JsonObject {
  const gap = `(?:(?!${regex})[\\s\\S])`;
  switch (behavior) {
    case "Isolated":
      return isolated(regex);
    case "Contiguous":
      return isolated(`(?:${regex})+`);
    case "Removed":
      return matches(invert ? regex : `${gap}+`);
    case "MergedWithPrevious":
    case "MergedWithNext":
      if (invert) break;
      return matches(behavior === "MergedWithNext" ? `(?:${regex})${gap}*|${gap}+` : `${gap}*(?:${regex})|${gap}+`);
  }
  throw new UnsupportedModelError(
    `${where}: Split with behavior ${describe(behavior)} and invert ${invert} is not supported`,
  );
}

function isFirstMetaspace(value: unknown): boolean {
  return isObject(value) && value.type === "Metaspace" && value.prepend_scheme === "first";
}

function metaspace(config: JsonObject, where: string): JsonObject {
  const replacement = stringAt(config.replacement ?? "▁", `${where}.replacement`);
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
  if (scheme !== "always" && scheme !== "first" && scheme !== "never") {
    throw new UnsupportedModelError(`${where}.prepend_scheme: is ${describe(scheme)}, expected always, first or never`);
  }
  const replace = { type: "Metaspace", replacement, prepend_scheme: scheme };
  return config.split === false
    ? replace
    : preTokenizers(replace, split(escaped(replacement), "MergedWithNext", false, where));
}

/** The regular expression of a `pattern`; a literal String is escaped, whatever it looks like. */
function pattern(value: unknown, where: string): string {
  const config = objectAt(value, `${where}.pattern`);
  if (config.String !== undefined) return escaped(stringAt(config.String, `${where}.pattern.String`));
  return checkedPattern(stringAt(config.Regex, `${where}.pattern.Regex`), `${where}.pattern.Regex`);
}

function escaped(text: string): string {
  if (text === "") return "(?!)"; // Rust finds no empty literal
  return text.replace(/[\^$\\.*+?()[\]{}|/]/g, "\\$&");
}

const MAX_PATTERN = 20_000; // characters; the longest in use has 2,500

/**
 * The pattern itself, if its time can be trusted. Throws UnsupportedModelError for a repeated group that itself repeats or
 * chooses: JavaScript's engine goes back through every way to match it, and one hostile file would stop the process.
 */
export function checkedPattern(regex: string, where: string): string {
  if (regex.length > MAX_PATTERN) {
    throw new UnsupportedModelError(`${where}: ${regex.length} characters, at most ${MAX_PATTERN} are supported`);
  }
  const groups: boolean[] = []; // for each open group: whether it may match one text in several ways
  let set = 0;
  for (let i = 0; i < regex.length; i++) {
    const character = regex.charAt(i);
    if (character === "\\") i++;
    else if (character === "[") set++;
    else if (set > 0) set -= character === "]" ? 1 : 0;
    else if (character === "(") groups.push(false);
    else if (character === ")") {
      const varies = groups.pop() === true;
      const repeats = /^(?:[*+]|\{\d+,\d*\}|\{(?:[2-9]|\d\d+)\})/.test(regex.slice(i + 1));
      if (varies && repeats) {
        throw new UnsupportedModelError(
          `${where}: repeats a group that itself repeats or chooses, near "${regex.slice(Math.max(0, i - 20), i + 2)}"; its time can't be bounded`,
        );
      }
      markOpen(groups, varies);
    } else if ("*+?|{".includes(character) && !(character === "?" && regex.charAt(i - 1) === "("))
      markOpen(groups, true);
  }
  return regex;
}

function markOpen(groups: boolean[], varies: boolean): void {
  if (groups.length > 0 && varies) groups[groups.length - 1] = true;
}
