/** How a command ends badly: wrong usage, a failure in one line, or a fault of ours. */
import { IngleError } from "../device/errors.ts";
import { printable } from "./output.ts";

/** What was typed cannot be meant. Exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Exit codes of every command. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** The line, or with `verbose` the lines, for stderr. Text of files is in it: nothing of it may move a terminal's cursor. */
export function errorText(error: unknown, verbose: boolean): string {
  if (error instanceof UsageError) return `ingle: ${printable(error.message)}\n`;
  if (!(error instanceof Error)) return `ingle: ${printable(String(error))}\n`;
  const expected = error instanceof IngleError;
  const hint = expected || verbose ? "" : "; run it again with --verbose to see where";
  const line = `ingle: ${printable(error.message || error.name).replaceAll("\n", " ")}${hint}\n`;
  return verbose ? line + stacks(error) : line;
}

function stacks(error: Error): string {
  const own = `${printable(error.stack ?? String(error))}\n`;
  return error.cause instanceof Error ? `${own}because of ${stacks(error.cause)}` : own;
}

/** The exit code that an error stands for. */
export function exitCodeOf(error: unknown): number {
  return error instanceof UsageError ? EXIT.usage : EXIT.failed;
}
