/** What a command is: how it is called, what it says of itself, and what it does. */
import type { Arguments, FlagTable } from "./flags.ts";
import type { Reporter } from "./progress.ts";

/** What a command gets besides its flags. */
export interface Context {
  readonly reporter: Reporter;
  /** Aborted by Ctrl-C and by a reader that closed stdout. */
  readonly signal: AbortSignal;
}

/** One `ingle` command. */
export interface Command {
  /** What follows `ingle`, as "score -m MODEL --text TEXT". */
  readonly usage: string;
  /** One line. */
  readonly summary: string;
  readonly flags: FlagTable;
  /** Flags that are documented, but not there yet, and why or what to do instead. */
  readonly planned?: Readonly<Record<string, string>>;
  /** Lines that follow the flags in the help: examples first. */
  readonly more?: string;
  /** Returns the exit code. */
  run(args: Arguments, context: Context): Promise<number>;
}
