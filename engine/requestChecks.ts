/** Checks of a request's fields: each throws InvalidRequestError that names the field, what it is and what was expected. */
import { InvalidRequestError } from "./errors.ts";

/** A list of ids of the vocabulary; empty where it is not given. */
export function idList(ids: readonly number[] | undefined, field: string, vocabulary: number): readonly number[] {
  if (ids === undefined) return [];
  if (!Array.isArray(ids)) throw new InvalidRequestError(`${field}: expected a list of token ids`);
  const bad = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
  if (bad >= 0)
    throw new InvalidRequestError(
      `${field}[${bad}]: is ${String(ids[bad])}, expected an integer from 0 to ${vocabulary - 1}`,
    );
  return ids;
}

/** A number of the range: from `min`, or above it where `open`, to `max`. */
export function number(
  value: number | undefined,
  field: string,
  min: number,
  max: number,
  open = false,
): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !(value >= min && value <= max) || (open && value === min)) {
    const from = open ? `above ${min}, at most ${max}` : `from ${min} to ${max}`;
    throw new InvalidRequestError(`${field}: is ${String(value)}, expected a number ${from}`);
  }
  return value;
}

/** An integer of the range, both ends included. */
export function integer(value: number | undefined, field: string, min: number, max: number): number | undefined {
  if (value === undefined) return undefined;
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new InvalidRequestError(`${field}: is ${String(value)}, expected an integer from ${min} to ${max}`);
  }
  return value;
}

/** Throws unless the value is left out or of the type. */
export function checkType(value: unknown, field: string, type: "boolean" | "object" | "function"): void {
  if (value === undefined || (value !== null && typeof value === type)) return;
  const is = value === null ? "null" : typeof value;
  throw new InvalidRequestError(`${field}: is ${is}, expected ${type === "object" ? "an object" : `a ${type}`}`);
}

/** Throws unless the value is left out or an AbortSignal. */
export function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new InvalidRequestError("signal: expected an AbortSignal");
}

/** Throws unless it is an object of known fields only. */
export function checkFields(request: unknown, known: Readonly<Record<string, true>>, what: string): void {
  if (typeof request !== "object" || request === null)
    throw new InvalidRequestError(`${what}: expected an object with ${Object.keys(known).join(", ")}`);
  const unknown = Object.keys(request).find((key) => !Object.hasOwn(known, key));
  if (unknown !== undefined)
    throw new InvalidRequestError(
      `${what}: field ${JSON.stringify(unknown)} is not supported; there are ${Object.keys(known).join(", ")}`,
    );
}
