/** Fields of a JSON body, read one by one: each is known by name, of the right type, or refused by name. */
import { describe, isObject } from "../../models/text/json.ts";
import { InvalidRequestError } from "../errors.ts";

/** A body whose field names are all known. */
export type Body = Readonly<Record<string, unknown>>;

/** A field of a body is unknown or of the wrong type; `param` is its name. */
export class RequestFieldError extends InvalidRequestError {
  readonly param: string;
  constructor(param: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.param = param;
  }
}

/** The fields that OpenAI's API has for its own bookkeeping: they change no answer, so they are taken and not used. */
const BOOKKEEPING = ["user", "metadata", "store"] as const;

/**
 * Checks the names of all fields. `known` are used; `neutral` are not supported, but for these values, which ask for nothing;
 * null is as if the field were not there.
 */
export function checkNames(
  body: unknown,
  known: readonly string[],
  neutral: Readonly<Record<string, (value: unknown) => boolean>> = {},
): Body {
  if (!isObject(body)) throw new InvalidRequestError(`body: is ${describe(body)}, expected an object in JSON`);
  for (const [name, value] of Object.entries(body)) {
    if (value === null || known.includes(name) || BOOKKEEPING.some((field) => field === name)) continue;
    if (Object.hasOwn(neutral, name)) {
      if (neutral[name]?.(value) === true) continue;
      throw new RequestFieldError(name, `${name}: is ${given(value)}, which is not supported; leave the field out`);
    }
    throw new RequestFieldError(
      name,
      `${name.slice(0, 100)}: there is no such field, or it is not supported; there are ${known.join(", ")}`,
    );
  }
  return body;
}

/** A value in a few words. */
function given(value: unknown): string {
  return JSON.stringify(value).slice(0, 60);
}

/** A field that is a whole number between two bounds, or undefined. */
export function integerField(body: Body, name: string, min: number, max: number): number | undefined {
  const value = body[name] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isInteger(value) && value >= min && value <= max) return value;
  throw new RequestFieldError(name, `${name}: is ${given(value)}, expected a whole number from ${min} to ${max}`);
}

/** A field that is true or false; false where it is not given. */
export function booleanField(body: Body, name: string, otherwise = false): boolean {
  const value = body[name] ?? otherwise;
  if (typeof value === "boolean") return value;
  throw new RequestFieldError(name, `${name}: is ${given(value)}, expected true or false`);
}

/** A field that is a string, or undefined. */
export function stringField(body: Body, name: string): string | undefined {
  const value = body[name] ?? undefined;
  if (value === undefined || typeof value === "string") return value;
  throw new RequestFieldError(name, `${name}: is ${given(value)}, expected a string`);
}
