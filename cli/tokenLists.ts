/** Prompts given as token ids: `--tokens 1,2,3`, any number of times, or a file with a JSON array a line. */
import { readFileSync } from "node:fs";
import { UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";

/** Flags that give prompts as token ids. */
export const TOKEN_FLAGS = {
  tokens: { value: "1,2,3", repeat: true, help: "a prompt as token ids; may be given several times" },
  "tokens-file": { value: "FILE", help: "prompts as token ids: one JSON array a line" },
} as const satisfies FlagTable;

/** The prompts, or undefined where neither flag is given. Throws UsageError that names the flag or the line. */
export function tokenLists(args: Arguments<keyof typeof TOKEN_FLAGS>): number[][] | undefined {
  args.atMostOne("tokens", "tokens-file");
  const file = args.text("tokens-file");
  if (file !== undefined) return fromFile(file);
  if (!args.has("tokens")) return undefined;
  return args.all("tokens").map((text) => idsWithCommas(text, "--tokens"));
}

/** Ids with commas between them. Throws UsageError that names the flag. */
export function idsWithCommas(text: string, flag: string): number[] {
  if (/^\s*\d+\s*(,\s*\d+\s*)*$/.test(text)) return text.split(",").map(Number);
  throw new UsageError(`${flag}: is ${JSON.stringify(text)}, expected ids such as 1,2,3`);
}

function fromFile(file: string): number[][] {
  const lines = readText(file, "--tokens-file").split("\n");
  const lists = lines.flatMap((line, i) => (line.trim() === "" ? [] : [idsOf(line, `${file}:${i + 1}`)]));
  if (lists.length === 0) throw new UsageError(`--tokens-file ${file}: has no line, expected one JSON array a line`);
  return lists;
}

function idsOf(line: string, where: string): number[] {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    value = undefined;
  }
  const isId = (id: unknown): id is number => typeof id === "number" && Number.isSafeInteger(id) && id >= 0;
  if (Array.isArray(value) && value.length > 0 && value.every(isId)) return value;
  throw new UsageError(`${where}: expected a JSON array of token ids such as [1, 2, 3]`);
}

/** The text of a file that a flag names. Throws UsageError where it cannot be read. */
export function readText(file: string, flag: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const why = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    throw new UsageError(`${flag} ${file}: cannot be read (${why}); give the name of a file`, { cause });
  }
}
