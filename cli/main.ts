#!/usr/bin/env node
/** The `ingle` command: finds the command that is meant, runs it, and turns how it ended into an exit code. */
import { bench } from "./bench.ts";
import type { Command } from "./command.ts";
import { doctor } from "./doctor.ts";
import { EXIT, errorText, exitCodeOf, UsageError } from "./errors.ts";
import { parseFlags } from "./flags.ts";
import { overview, page } from "./help.ts";
import { inspect } from "./inspect.ts";
import { kernels } from "./kernels.ts";
import { ls } from "./ls.ts";
import { COMMON_FLAGS } from "./modelFlags.ts";
import { nearest } from "./nearest.ts";
import { print } from "./output.ts";
import { Reporter } from "./progress.ts";
import { pull } from "./pull.ts";
import { rm } from "./rm.ts";
import { run } from "./run.ts";
import { score } from "./score.ts";
import { serve } from "./serve.ts";
import { version } from "./version.ts";

const COMMANDS: Readonly<Record<string, Command>> = {
  run,
  score,
  serve,
  bench,
  inspect,
  kernels,
  doctor,
  pull,
  ls,
  rm,
};
/** Documented, but not there yet. */
const PLANNED = ["eval", "train"];

/** How long stopping may take before it is said. */
const SLOW_STOP_MS = 700;

const stop = new AbortController();
let interrupted = false;

process.on("SIGINT", () => {
  if (interrupted) process.exit(EXIT.interrupted); // the second time nothing is waited for
  interrupted = true;
  stop.abort();
  // A kernel that is being compiled cannot be stopped: on a software adapter all of them take seconds.
  setTimeout(() => process.stderr.write("\nstopping; Ctrl-C again leaves at once\n"), SLOW_STOP_MS).unref();
});
// A reader that has seen enough (`| head`) closes the pipe: that ends the work, and is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  stop.abort();
});
process.stderr.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

async function main(words: readonly string[]): Promise<number> {
  let verbose = words.includes("--verbose");
  try {
    const [name, ...rest] = words;
    if (name === undefined) {
      process.stderr.write(overview(Object.values(COMMANDS)));
      return EXIT.usage;
    }
    if (name === "--help" || name === "-h" || name === "help") return help(rest[0]);
    if (name === "--version" || name === "-V") {
      print(`ingle ${version()}\n`);
      return EXIT.done;
    }
    const command = find(name);
    const args = parseFlags(rest, { ...command.flags, ...COMMON_FLAGS }, command.planned);
    if (args.has("help")) {
      print(page(command));
      return EXIT.done;
    }
    verbose = args.has("verbose");
    const reporter = new Reporter({ quiet: args.has("quiet"), verbose });
    try {
      const code = await command.run(args, { reporter, signal: stop.signal });
      return stop.signal.aborted ? endOfStop() : code;
    } finally {
      reporter.clear();
    }
  } catch (error) {
    if (stop.signal.aborted) return endOfStop();
    process.stderr.write(errorText(error, verbose));
    return exitCodeOf(error);
  }
}

/** The exit code of work that was ended from outside: a closed pipe is no failure. */
function endOfStop(): number {
  return interrupted ? EXIT.interrupted : EXIT.done;
}

function help(name: string | undefined): number {
  print(name === undefined ? overview(Object.values(COMMANDS)) : page(find(name)));
  return EXIT.done;
}

function find(name: string): Command {
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command !== undefined) return command;
  const known = Object.keys(COMMANDS);
  if (PLANNED.includes(name)) throw new UsageError(`${name}: is not supported yet; there are ${known.join(", ")}`);
  const what = name.startsWith("-") ? "flag before a command" : "command";
  const close = nearest(name, known);
  const advice = close === undefined ? `there are ${known.join(", ")}` : `did you mean ${close}?`;
  throw new UsageError(`${name}: there is no such ${what}; ${advice}`);
}

// Last, when all of the above is there.
process.exitCode = await main(process.argv.slice(2));
