/** Python's strings as chat templates use them: printing of values, white space, and the methods that JavaScript has otherwise. */
import { entriesOf, itemsOf, numberOf, textOf, type Value } from "./jinjaLibrary.ts";

// what str.isspace() takes: unlike \s of JavaScript with U+001C to U+001F and U+0085, without U+FEFF
const SPACE = "\\t-\\r\\x1C-\\x20\\x85\\xA0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000";
const LEADING = new RegExp(`^[${SPACE}]+`);
const TRAILING = new RegExp(`[${SPACE}]$`);
const WORDS = new RegExp(`[^${SPACE}]+`, "g");
const BREAKS = "\\n-\\r\\x1C-\\x1E\\x85\\u2028\\u2029";
const LINE = new RegExp(`\\r\\n|[${BREAKS}]`); // where str.splitlines() cuts

/** A value as `{{ value }}` prints it: `True`, `None`, `['a', 1]`. */
export function print(value: Value): string {
  return value.type === "StringValue" ? String(value.value) : repr(value);
}

function repr(value: Value): string {
  const text = textOf(value);
  if (text !== undefined) return quoted(text);
  const items = itemsOf(value);
  if (items !== undefined) return `[${items.map(repr).join(", ")}]`;
  const entries = entriesOf(value);
  if (entries !== undefined)
    return `{${Array.from(entries, ([key, item]) => `${quoted(key)}: ${repr(item)}`).join(", ")}}`;
  switch (value.type) {
    case "BooleanValue":
      return value.value === true ? "True" : "False";
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "";
    default:
      return value.toString();
  }
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\\", "\\\\"],
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
]);

function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const body = Array.from(text, (character) => {
    if (character === quote) return `\\${quote}`;
    const hex = (character.codePointAt(0) ?? NaN).toString(16);
    return (
      ESCAPES.get(character) ?? (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(character) ? `\\x${hex.padStart(2, "0")}` : character)
    );
  });
  return quote + body.join("") + quote;
}

/** Python's `==`. */
export function equal(a: Value, b: Value): boolean {
  const [listA, listB] = [itemsOf(a), itemsOf(b)];
  if (listA !== undefined && listB !== undefined) {
    return listA.length === listB.length && listA.every((item, i) => same(item, listB[i]));
  }
  const [mapA, mapB] = [entriesOf(a), entriesOf(b)];
  if (mapA !== undefined && mapB !== undefined) {
    return mapA.size === mapB.size && Array.from(mapA).every(([key, item]) => same(item, mapB.get(key)));
  }
  const [numberA, numberB] = [numeric(a), numeric(b)];
  if (numberA !== undefined || numberB !== undefined) return numberA === numberB;
  return a.type === b.type && a.value === b.value;
}

function same(a: Value, b: Value | undefined): boolean {
  return b !== undefined && equal(a, b);
}

function numeric(value: Value): number | undefined {
  return value.type === "BooleanValue" ? Number(value.value) : numberOf(value);
}

/** `text` without `characters`, white space by default, at its `side`s. */
export function strip(text: string, characters: string | undefined, side: "both" | "left" | "right"): string {
  let rest = text;
  if (characters === undefined) {
    if (side !== "right") rest = rest.replace(LEADING, "");
    let end = rest.length;
    while (side !== "left" && end > 0 && TRAILING.test(rest.charAt(end - 1))) end--;
    return rest.slice(0, end);
  }
  const taken = new Set(characters);
  const all = Array.from(rest);
  let start = 0;
  let end = all.length;
  while (side !== "right" && start < end && taken.has(all[start] ?? "")) start++;
  while (side !== "left" && end > start && taken.has(all[end - 1] ?? "")) end--;
  return all.slice(start, end).join("");
}

/** str.split and, from the right, str.rsplit. Throws RangeError for an empty separator. */
export function split(text: string, separator: string | undefined, most: number, fromRight: boolean): string[] {
  if (separator === "") throw new RangeError("empty separator");
  const limit = most < 0 ? Number.POSITIVE_INFINITY : most;
  const found = Array.from(text.matchAll(separator === undefined ? WORDS : literal(separator)));
  if (separator === undefined) return splitWords(text, found, limit, fromRight);
  const cuts = fromRight ? found.slice(Math.max(0, found.length - limit)) : found.slice(0, limit);
  const starts = [0, ...cuts.map((cut) => cut.index + separator.length)];
  return starts.map((start, i) => text.slice(start, cuts[i]?.index));
}

function splitWords(text: string, words: readonly RegExpExecArray[], limit: number, fromRight: boolean): string[] {
  if (words.length <= limit) return words.map((word) => word[0]);
  if (fromRight) {
    const kept = words.slice(words.length - limit);
    const border = kept[0]?.index ?? text.length;
    return [strip(text.slice(0, border), undefined, "right"), ...kept.map((word) => word[0])];
  }
  return [...words.slice(0, limit).map((word) => word[0]), text.slice(words[limit]?.index)];
}

function literal(text: string): RegExp {
  return new RegExp(text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gu");
}

/** str.splitlines. */
export function lines(text: string): string[] {
  const parts = text.split(LINE);
  if (parts.at(-1) === "") parts.pop();
  return parts;
}

/** str.title: the first letter after anything that is no letter. */
export function title(text: string): string {
  return text.toLowerCase().replace(/(?<!\p{L})\p{L}/gu, (letter) => letter.toUpperCase());
}

/** str.capitalize. */
export function capitalize(text: string): string {
  const [first = "", ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join("").toLowerCase();
}

/** Jinja's `indent`: every line but the first (or it too) and but empty ones (or they too) moved right by `by`. */
export function indent(text: string, by: string, first: boolean, blank: boolean): string {
  const [head = "", ...rest] = lines(`${text}\n`);
  return [first ? by + head : head, ...rest.map((line) => (line !== "" || blank ? by + line : line))].join("\n");
}

const MONTHS = "January February March April May June July August September October November December".split(" ");
const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");

/** datetime.strftime in the C locale, for the codes that templates use; an unknown code stays as it is. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const month = MONTHS[date.getMonth()] ?? "";
  const day = DAYS[date.getDay()] ?? "";
  const hour = date.getHours();
  const startOfYear = new Date(date.getFullYear(), 0, 1);
  const dayOfYear =
    Math.round(
      (new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime() - startOfYear.getTime()) / 86_400_000,
    ) + 1;
  const codes: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()).padStart(4, "0"),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2, " "),
    H: two(hour),
    I: two(hour % 12 || 12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    p: hour < 12 ? "AM" : "PM",
    B: month,
    b: month.slice(0, 3),
    A: day,
    a: day.slice(0, 3),
    j: String(dayOfYear).padStart(3, "0"),
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    T: `${two(hour)}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    "%": "%",
  };
  return format.replace(/%(-?)([A-Za-z%])/g, (whole: string, bare: string, code: string) => {
    const text = codes[code];
    if (text === undefined) return whole;
    return bare === "-" ? text.replace(/^[0 ]+(?=.)/, "") : text;
  });
}
