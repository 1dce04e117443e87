/** JSON files of a checkpoint's folder, read whole and looked into field by field, with errors that name file and field. */
import type { Folder } from "../../device/files.ts";
import { ModelFormatError } from "../errors.ts";
import { readJson as readAnyJson } from "../weights/readJson.ts";

/** A parsed JSON object; nothing is known about its fields. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** The object in a JSON file, or undefined where there is no file. Throws ModelFormatError if it holds anything else. */
export async function readJson(folder: Folder, name: string): Promise<JsonObject | undefined> {
  const value = await readAnyJson(folder, name);
  return value === undefined ? undefined : objectAt(value, name);
}

/** Whether a value is a JSON object: neither null nor an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What a value is, in words for a message. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  return value === undefined ? "missing" : `the ${typeof value} ${JSON.stringify(value).slice(0, 60)}`;
}

/** The error for a field that is not what the format says. */
export function fieldError(where: string, value: unknown, expected: string): ModelFormatError {
  return new ModelFormatError("FIELD", `${where}: is ${describe(value)}, expected ${expected}`);
}

/** `value` as an object, or a ModelFormatError that names `where`. */
export function objectAt(value: unknown, where: string): JsonObject {
  if (!isObject(value)) throw fieldError(where, value, "an object");
  return value;
}

/** `value` as a list, or a ModelFormatError that names `where`. */
export function listAt(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw fieldError(where, value, "a list");
  return value;
}

/** `value` as a string, or a ModelFormatError that names `where`. */
export function stringAt(value: unknown, where: string): string {
  if (typeof value !== "string") throw fieldError(where, value, "a string");
  return value;
}

/** `value` as a token id, or a ModelFormatError that names `where`. */
export function idAt(value: unknown, where: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value >= MAX_ID) {
    throw fieldError(where, value, `a whole number from 0 to ${MAX_ID - 1}`);
  }
  return value;
}

const MAX_ID = 2 ** 24; // sixty times the largest vocabulary in use; two ids then fit one exact float64
