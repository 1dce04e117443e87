/** Methods and filters of texts in templates as Python has them, where the library has JavaScript's or none. */
import { itemsOf, numberOf, textOf, toValue, type Value } from "./jinjaLibrary.ts";
import { capitalize, indent, lines, print, split, strip, title } from "./pythonText.ts";

/** An argument by its position, or by its name. */
export type Arguments = (position: number, name?: string) => Value | undefined;

/** Throws for a text that is longer than a template may make one: asked before it is made. */
type CheckLength = (length: number) => void;

/** Filters that print a value which is no text first. */
const TAKES_ANY: ReadonlySet<string> = new Set("capitalize e escape lower replace title trim upper".split(" "));
const MIN_INDENT_SHARE = 4096; // an indent of 256 then already reaches the limit of 1 MiB
const HTML: Readonly<Record<string, string>> = { "&": "amp", "<": "lt", ">": "gt", "'": "#39", '"': "#34" };

/** What a method of a text gives, or undefined where the library's own is right. */
export function textMethod(name: string, text: string, given: Arguments, checkLength: CheckLength): Value | undefined {
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
      return items === undefined ? undefined : join(items, text, checkLength);
    }
    case "replace":
      return replace(text, { from: first, to: textOf(given(1)), count: given(2, "count") }, checkLength);
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

/** What a filter makes of a value, or undefined where the library's own is right. */
export function filtered(name: string, operand: Value, given: Arguments, checkLength: CheckLength): Value | undefined {
  if (name === "string") return toValue(printed(operand, checkLength));
  if (name === "tojson") checkLength((numberOf(given(0, "indent")) ?? 0) * MIN_INDENT_SHARE);
  const items = itemsOf(operand);
  if (name === "join" && items !== undefined && given(1, "attribute") === undefined) {
    return join(items, textOf(given(0, "d")) ?? "", checkLength);
  }
  if (name === "count" && items !== undefined) return toValue(items.length);
  const text = TAKES_ANY.has(name) ? printed(operand, checkLength) : textOf(operand);
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
      return replace(
        text,
        { from: textOf(given(0, "old")), to: textOf(given(1, "new")), count: given(2, "count") },
        checkLength,
      );
    case "indent":
      return indented(text, given, checkLength);
    case "e":
    case "escape":
      return toValue(text.replace(/[&<>'"]/g, (character) => `&${HTML[character]};`));
    default:
      return undefined;
  }
}

function indented(text: string, given: Arguments, checkLength: CheckLength): Value {
  const width = given(0, "width");
  const by = numberOf(width) ?? 4;
  checkLength(text.split("\n").length * (textOf(width)?.length ?? by));
  const flag = (value: Value | undefined) => value?.value === true;
  return toValue(
    indent(text, textOf(width) ?? " ".repeat(Math.max(0, by)), flag(given(1, "first")), flag(given(2, "blank"))),
  );
}

/** A value as it is printed, of a length that is allowed. */
export function printed(value: Value, checkLength: CheckLength): string {
  const text = print(value);
  checkLength(text.length);
  return text;
}

function join(items: readonly Value[], separator: string, checkLength: CheckLength): Value {
  const parts = items.map((item) => print(item));
  checkLength(parts.reduce((sum, part) => sum + part.length + separator.length, -separator.length));
  return toValue(parts.join(separator));
}

interface Replacement {
  readonly from: string | undefined;
  readonly to: string | undefined;
  /** Unset or below 0: all. */
  readonly count: Value | undefined;
}

function replace(text: string, { from, to, count: most }: Replacement, checkLength: CheckLength): Value | undefined {
  if (from === undefined || to === undefined) return undefined;
  const parts = from === "" ? ["", ...Array.from(text), ""] : text.split(from);
  const limit = numberOf(most) ?? -1;
  const count = limit < 0 ? parts.length - 1 : Math.min(limit, parts.length - 1);
  checkLength(text.length + count * (to.length - from.length));
  const head = parts.slice(0, count + 1).join(to);
  return toValue([head, ...parts.slice(count + 1)].join(from));
}

/** How many code points there are before an index of UTF-16 units; -1 stays -1. */
function codePoints(text: string, index: number): number {
  let count = index;
  for (let i = 0; i + 1 < index; i++) if ((text.codePointAt(i) ?? 0) > 0xffff) count--;
  return count;
}
