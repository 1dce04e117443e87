/** Flags of a command: declared in a table, parsed strictly, read by type. */
import { parseArgs } from "node:util";
import { UsageError } from "./errors.ts";
import { nearest } from "./nearest.ts";

/** One flag; its name is its key in the table. */
export interface Flag {
  readonly short?: string;
  /** What its value is called in the help; a switch has none. */
  readonly value?: string;
  /** Whether it may be given more than once. */
  readonly repeat?: true;
  readonly help: string;
}

/** The flags of a command by their long names. */
export type FlagTable = Readonly<Record<string, Flag>>;

/** What was typed, checked against the table whose names are `Name`. Every getter throws UsageError for a value it cannot take. */
export class Arguments<Name extends string = string> {
  readonly positionals: readonly string[];
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(positionals: readonly string[], values: ReadonlyMap<string, readonly string[]>) {
    this.positionals = positionals;
    this.#values = values;
  }

  /** Whether it was given. */
  has(name: Name): boolean {
    return this.#values.has(name);
  }

  /** Every value given, in order. */
  all(name: Name): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  text(name: Name): string | undefined {
    return this.all(name)[0];
  }

  /** A number of the range: from `min`, or above it where `open`, to `max`. */
  number(name: Name, min: number, max: number, { open = false } = {}): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max && !(open && value === min)) return value;
    const range = open ? `above ${min}, at most ${max}` : `from ${min} to ${max}`;
    throw new UsageError(`--${name}: is ${JSON.stringify(text)}, expected a number ${range}`);
  }

  integer(name: Name, min: number, max: number): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    const number = /^[+-]?\d+$/.test(value) ? Number(value) : Number.NaN;
    if (number >= min && number <= max) return number;
    throw new UsageError(`--${name}: is ${JSON.stringify(value)}, expected a whole number from ${min} to ${max}`);
  }

  /** A number of bytes, as 1073741824, 512MiB, 1.5G or 800MB. */
  bytes(name: Name): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const [, digits, prefix, binary] = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?b?))?b?$/i.exec(text) ?? [];
    // As in llama.cpp and Docker, a bare letter is binary; only "MB" is the decimal one.
    const base = binary?.toLowerCase() === "b" ? 1000 : 1024;
    const value = Math.floor(Number(digits) * base ** (" kmgt".indexOf((prefix ?? " ").toLowerCase()) || 0));
    if (value >= 1 && Number.isSafeInteger(value)) return value;
    throw new UsageError(`--${name}: is ${JSON.stringify(text)}, expected bytes such as 1073741824, 512MiB or 2GiB`);
  }

  oneOf<T extends string>(name: Name, choices: readonly T[]): T | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const chosen = choices.find((choice) => choice === text);
    if (chosen !== undefined) return chosen;
    throw new UsageError(`--${name}: is ${JSON.stringify(text)}, expected ${choices.join(" or ")}`);
  }

  /** An object in JSON. */
  object(name: Name): Readonly<Record<string, unknown>> | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      value = undefined;
    }
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
    throw new UsageError(`--${name}: is ${JSON.stringify(text)}, expected an object in JSON`);
  }

  /** Refuses two flags that contradict each other. */
  atMostOne(...names: readonly Name[]): void {
    const given = names.filter((name) => this.has(name));
    if (given.length > 1)
      throw new UsageError(`${given.map((name) => `--${name}`).join(" and ")}: only one of them may be given`);
  }
}

/**
 * Parses the words behind a command. `planned` has flags that are documented and not there yet, with the reason.
 *
 * Throws UsageError for a flag that is not in the table, one without its value, and one given twice that may not be.
 */
export function parseFlags<Table extends FlagTable>(
  words: readonly string[],
  flags: Table,
  planned: Readonly<Record<string, string>> = {},
): Arguments<Extract<keyof Table, string>> {
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { short, value, repeat }]) => {
      const type = value === undefined ? ("boolean" as const) : ("string" as const);
      return [name, { type, multiple: repeat === true, ...(short === undefined ? {} : { short }) }];
    }),
  );
  const { tokens } = parseArgs({ args: [...words], options, strict: false, tokens: true, allowPositionals: true });
  const positionals: string[] = [];
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const value = checkedValue(token, flags, planned);
    const before = values.get(token.name);
    if (before === undefined) values.set(token.name, [value]);
    else if (flags[token.name]?.repeat === true) before.push(value);
    else throw new UsageError(`--${token.name}: is given twice, expected once`);
  }
  return new Arguments(positionals, values);
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value: string | undefined;
  readonly inlineValue: boolean | undefined;
}

function checkedValue(
  { name, rawName, value, inlineValue }: OptionToken,
  flags: FlagTable,
  planned: Readonly<Record<string, string>>,
): string {
  const flag = Object.hasOwn(flags, name) ? flags[name] : undefined;
  if (flag === undefined) {
    const why = Object.hasOwn(planned, name) ? planned[name] : undefined;
    if (why !== undefined) throw new UsageError(`${rawName}: is not supported yet; ${why}`);
    const close = nearest(name, Object.keys(flags));
    const advice = close === undefined ? "--help lists the flags" : `did you mean --${close}?`;
    throw new UsageError(`${rawName}: there is no such flag; ${advice}`);
  }
  if (flag.value === undefined) {
    if (value !== undefined) throw new UsageError(`${rawName}: takes no value, is given ${JSON.stringify(value)}`);
    return "";
  }
  // Without "=", a flag that follows would otherwise be taken for the value.
  const swallowed = inlineValue !== true && value?.startsWith("--") === true && isFlag(value, flags);
  if (value === undefined || swallowed) throw new UsageError(`${rawName}: has no value, expected ${flag.value}`);
  return value;
}

function isFlag(word: string, flags: FlagTable): boolean {
  return Object.hasOwn(flags, word.slice(2).split("=")[0] ?? "");
}
