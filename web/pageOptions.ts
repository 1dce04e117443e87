/** The settings in a page's address, named as the command's flags: `chat.html?model=URL&temperature=0&max_tokens=40&seed=1`. */
import type { GenerateRequest } from "../engine/types.ts";

/** What `chat.html` was asked for. */
export interface PageOptions {
  /** "default", or an address: absolute, or relative to the page. */
  readonly model: string;
  /** The prompt is continued as it is, without the chat template. */
  readonly raw: boolean;
  readonly sampling: Pick<GenerateRequest, "temperature" | "maxTokens" | "seed">;
}

const NAMES = ["model", "temperature", "max_tokens", "seed", "raw"];

/** The part of an address from "?" on. Throws RangeError for a setting that is unknown, given twice or out of range. */
export function pageOptions(search: string): PageOptions {
  const given = new URLSearchParams(search);
  onlyKnown(given, NAMES);
  const temperature = number(given, "temperature", 0, Number.MAX_VALUE);
  const maxTokens = integer(given, "max_tokens", 1);
  const seed = integer(given, "seed", 0);
  return {
    model: given.get("model") || "default",
    raw: oneOf(given, "raw", ["0", "1"]) === "1",
    sampling: {
      ...(temperature === undefined ? {} : { temperature }),
      ...(maxTokens === undefined ? {} : { maxTokens }),
      ...(seed === undefined ? {} : { seed }),
    },
  };
}

/** Refuses settings that are not in `names`, and those given twice. */
export function onlyKnown(given: URLSearchParams, names: readonly string[]): void {
  for (const name of given.keys()) {
    if (!names.includes(name)) throw wrong(name, "is no setting of this page", names.join(", "));
    if (given.getAll(name).length > 1) throw wrong(name, `is given ${given.getAll(name).length} times`, "once");
  }
}

/** One of some words, or undefined where the address has none. */
export function oneOf<Word extends string>(
  given: URLSearchParams,
  name: string,
  words: readonly Word[],
): Word | undefined {
  const text = given.get(name) ?? "";
  const found = words.find((word) => word === text);
  if (found === undefined && text !== "") throw wrong(name, `is ${JSON.stringify(text)}`, words.join(" or "));
  return found;
}

function number(given: URLSearchParams, name: string, min: number, max: number): number | undefined {
  const text = given.get(name) ?? "";
  if (text === "") return undefined;
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max)) throw wrong(name, `is ${JSON.stringify(text)}`, `a number from ${min}`);
  return value;
}

function integer(given: URLSearchParams, name: string, min: number): number | undefined {
  const value = number(given, name, min, Number.MAX_SAFE_INTEGER);
  if (value !== undefined && !Number.isInteger(value)) throw wrong(name, `is ${value}`, "a whole number");
  return value;
}

function wrong(name: string, is: string, expected: string): RangeError {
  return new RangeError(`${name}: ${is}, expected ${expected}; correct the page's address`);
}

/** The folder that `model` means on a page at `base`. Throws RangeError for what is no address of the web. */
export function modelAddress(model: string, base: string): string {
  const path = model === "default" ? "models/default/" : model;
  const url = URL.canParse(path, base) ? new URL(path, base) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return url.href;
  throw wrong("model", `is ${JSON.stringify(model)}`, "an https:// address of a folder, or default");
}
