/** Fields of parsed JSON, read with their type and range checked: every refusal names file, field, value and expectation. */
import { ModelFormatError, UnsupportedModelError } from "./errors.ts";

/** One JSON object of a checkpoint's file, and how a message names its fields: `file: path` + key. */
export interface Fields {
  /** "config.json". */
  readonly file: string;
  /** "" at the top of the file, "rope_scaling." inside an object of it. */
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
  /** Keys that were asked for so far. */
  readonly asked: Set<string>;
}

/** An integer's legal range, both ends included. `max` stands for "absurd above": far beyond any published model. */
export interface IntegerRange {
  readonly min: number;
  readonly max: number;
}

/** A number's legal range: above `above` (never equal), at least `min`, at most `max`; an end left out is open. */
export interface NumberRange {
  readonly above?: number;
  readonly min?: number;
  readonly max?: number;
}

/** Absurd above: the longest published context is 10,485,760 tokens. */
export const MAX_POSITIONS = 2 ** 27;

// C1 controls, line separators and bidirectional marks, which JSON.stringify leaves as they are: a name from a file must not steer a terminal.
const UNPRINTABLE = /[\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A value as a message shows it: text in quotes, cut at 60 characters and free of control characters; objects and lists by kind. */
export function show(value: unknown): string {
  if (value === undefined) return "missing";
  if (typeof value === "string") {
    const cut = value.length > 60 ? `${value.slice(0, 60)}…` : value;
    return JSON.stringify(cut).replace(UNPRINTABLE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "object" && value !== null) return "an object";
  return String(value);
}

/** A key of a file as a message shows it: like `show`, without the quotes. */
export function showKey(key: string): string {
  return show(key).slice(1, -1);
}

/** Takes parsed JSON as the object it has to be. Throws ModelFormatError, code CONFIG. */
export function fieldsOf(file: string, value: unknown): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ModelFormatError("CONFIG", `${file}: the file holds ${show(value)}, expected a JSON object`);
  }
  return { file, path: "", values: value as Readonly<Record<string, unknown>>, asked: new Set() }; // checked the line above
}

/** The object under `key`, or undefined where it is absent or null. Throws ModelFormatError if it is anything else. */
export function objectField(fields: Fields, key: string): Fields | undefined {
  const value = field(fields, key);
  if (value === undefined) return undefined;
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refused(fields, key, "an object");
  const values = value as Readonly<Record<string, unknown>>; // checked the line above
  return { file: fields.file, path: `${fields.path}${showKey(key)}.`, values, asked: new Set() };
}

/** The value under `key`; null and absent are both undefined. Only own keys: a file can't reach Object.prototype. */
export function field(fields: Fields, key: string): unknown {
  fields.asked.add(key);
  return Object.hasOwn(fields.values, key) ? (fields.values[key] ?? undefined) : undefined;
}

/** Whether the file writes `key` at all, null included. */
export function hasField(fields: Fields, key: string): boolean {
  fields.asked.add(key);
  return Object.hasOwn(fields.values, key);
}

/** The error for a field whose value is not what was expected. */
export function refused(fields: Fields, key: string, expected: string): ModelFormatError {
  const value = Object.hasOwn(fields.values, key) ? fields.values[key] : undefined;
  const name = `${fields.path}${showKey(key)}`;
  return new ModelFormatError("CONFIG", `${fields.file}: ${name} is ${show(value)}, expected ${expected}`);
}

/** The error for a field whose value is legal but not one that ingle runs. `supported` ends the message. */
export function unsupported(fields: Fields, key: string, supported: string): UnsupportedModelError {
  const name = `${fields.path}${showKey(key)}`;
  return new UnsupportedModelError(`${fields.file}: ${name} is ${show(field(fields, key))}, supported: ${supported}`);
}

/** The integer under `key`, or undefined where it is absent or null. Throws ModelFormatError outside `range` or for another type. */
export function optionalInteger(fields: Fields, key: string, range: IntegerRange): number | undefined {
  return field(fields, key) === undefined ? undefined : integerField(fields, key, range);
}

/** The integer under `key`. Throws ModelFormatError if it is missing, outside `range` or of another type. */
export function integerField(fields: Fields, key: string, { min, max }: IntegerRange): number {
  const value = field(fields, key);
  const kind = min === 1 ? "a positive integer" : `an integer of at least ${min}`;
  if (typeof value !== "number" || !Number.isInteger(value) || value < min) throw refused(fields, key, kind);
  if (value > max) throw refused(fields, key, `at most ${max}`);
  return value;
}

/** The finite number under `key`, or undefined where it is absent or null. Throws ModelFormatError outside `range` or for another type. */
export function optionalNumber(fields: Fields, key: string, range: NumberRange): number | undefined {
  return field(fields, key) === undefined ? undefined : numberField(fields, key, range);
}

/** The finite number under `key`. Throws ModelFormatError if it is missing, outside `range` or of another type. */
export function numberField(fields: Fields, key: string, range: NumberRange): number {
  const value = field(fields, key);
  if (typeof value !== "number" || !inRange(value, range)) throw refused(fields, key, rangeInWords(range));
  return value;
}

/** Whether `value` is finite and inside `range`. */
export function inRange(value: number, { above, min, max }: NumberRange): boolean {
  return (
    Number.isFinite(value) && value > (above ?? -Infinity) && value >= (min ?? -Infinity) && value <= (max ?? Infinity)
  );
}

function rangeInWords({ above, min, max }: NumberRange): string {
  const ends = [
    ...(above === undefined ? [] : [`above ${above}`]),
    ...(min === undefined ? [] : [`of at least ${min}`]),
    ...(max === undefined ? [] : [`of at most ${max}`]),
  ];
  return `a number ${ends.join(" and ")}`.trimEnd();
}

/** The boolean under `key`, or undefined where it is absent or null. Throws ModelFormatError for another type: 0 and "true" are not booleans. */
export function booleanField(fields: Fields, key: string): boolean | undefined {
  const value = field(fields, key);
  if (value !== undefined && typeof value !== "boolean") throw refused(fields, key, "true or false");
  return value;
}

/** The text under `key`, or undefined where it is absent or null. Throws ModelFormatError for another type. */
export function textField(fields: Fields, key: string): string | undefined {
  const value = field(fields, key);
  if (value !== undefined && typeof value !== "string") throw refused(fields, key, "a string");
  return value;
}

/** The list under `key`, or undefined where it is absent or null. Throws ModelFormatError for another type. */
export function listField(fields: Fields, key: string): readonly unknown[] | undefined {
  const value = field(fields, key);
  if (value !== undefined && !Array.isArray(value)) throw refused(fields, key, "a list");
  return value;
}

/** The spelling that a file uses for one fact that has two names; `newer` where it uses neither. Throws ModelFormatError, naming both, if it uses both and they differ. */
export function spelling(fields: Fields, older: string, newer: string): string {
  const [before, now] = [field(fields, older), field(fields, newer)];
  if (before !== undefined && now !== undefined && before !== now) throw contradiction(fields, older, newer);
  return now === undefined && before !== undefined ? older : newer;
}

/** The error for two fields that state one fact differently. */
export function contradiction(fields: Fields, one: string, other: string): ModelFormatError {
  const [a, b] = [`${fields.path}${one}`, `${fields.path}${other}`];
  const values = `${show(field(fields, one))} and ${b} is ${show(field(fields, other))}`;
  return new ModelFormatError("CONFIG", `${fields.file}: ${a} is ${values}, expected them to agree; remove one`);
}

const MAX_TOKEN_ID = 2 ** 31 - 1;
const MAX_TOKEN_IDS = 4096;

/** The token ids under `key`, written as an id, a list of ids, or null; −1 is "none", as the first Llama uploads write it. Repeats are dropped. */
export function tokenIdsField(fields: Fields, key: string, fallback: readonly number[] = []): readonly number[] {
  if (!hasField(fields, key)) return fallback;
  const value = field(fields, key) ?? [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  const ids = list.filter(
    (id): id is number => typeof id === "number" && Number.isInteger(id) && id >= -1 && id <= MAX_TOKEN_ID,
  );
  if (ids.length !== list.length || list.length > MAX_TOKEN_IDS)
    throw refused(fields, key, "a token id, a list of token ids, or null");
  return [...new Set(ids.filter((id) => id >= 0))];
}

/** A list of lists of token ids, none of them empty; absent and null are an empty one. Throws ModelFormatError. */
export function tokenRunsField(fields: Fields, key: string): readonly (readonly number[])[] {
  const value = field(fields, key) ?? [];
  const isId = (id: unknown): id is number =>
    typeof id === "number" && Number.isInteger(id) && id >= 0 && id <= MAX_TOKEN_ID;
  const isRun = (run: unknown): run is number[] => Array.isArray(run) && run.length > 0 && run.every(isId);
  if (!Array.isArray(value) || value.length > MAX_TOKEN_IDS || !value.every(isRun))
    throw refused(fields, key, "a list of lists of token ids, or null");
  return value;
}
