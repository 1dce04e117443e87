/** What goes to stderr: notes, details for --verbose, and one line that changes where stderr is a terminal. */
import { printable } from "./output.ts";

const SHOWN_EVERY = 100; // ms between changes of the line

/** Writes what people read while they wait: progress, plans and notes, all to stderr. */
export class Reporter {
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly #live: boolean;
  #shown = false;
  #shownAt = 0;
  #clock: NodeJS.Timeout | undefined;

  constructor({ quiet, verbose }: { readonly quiet: boolean; readonly verbose: boolean }) {
    this.quiet = quiet;
    this.verbose = verbose;
    this.#live = !quiet && process.stderr.isTTY === true;
  }

  /** A line that stays, unless --quiet. */
  say(text: string): void {
    this.clear();
    if (!this.quiet) process.stderr.write(`${printable(text)}\n`);
  }

  /** A line that stays, with --verbose. */
  detail(text: string): void {
    if (this.verbose) this.say(text);
  }

  /** The changing line: nothing where stderr is a file or a pipe. */
  status(text: string): void {
    const now = performance.now();
    if (!this.#live || now - this.#shownAt < SHOWN_EVERY) return;
    this.#shownAt = now;
    this.#shown = true;
    const width = Math.max((process.stderr.columns || 80) - 1, 10); // 0 where the terminal does not know
    process.stderr.write(`\r\u001b[K${printable(text).slice(0, width)}`);
  }

  /** The changing line with the seconds since now, until `clear`: for work that reports nothing in between. */
  waiting(text: string): void {
    this.clear();
    if (!this.#live) return;
    const start = performance.now();
    this.#clock = setInterval(() => this.status(`${text} ${Math.round((performance.now() - start) / 1000)} s`), 1000);
    this.#clock.unref();
  }

  /** Takes the changing line away. */
  clear(): void {
    clearInterval(this.#clock);
    if (this.#shown) process.stderr.write("\r\u001b[K");
    this.#shown = false;
    this.#shownAt = 0;
  }
}

/** Shows how much of a prompt is computed. */
export const promptProgress =
  (reporter: Reporter) =>
  (computed: number, total: number): void =>
    reporter.status(`reading the prompt ${bar(computed / total)} of ${total} tokens`);

/** "[=====     ] 45 %" */
export function bar(part: number): string {
  const width = 20;
  const full = Math.round(Math.min(Math.max(part, 0), 1) * width);
  return `[${"=".repeat(full).padEnd(width)}] ${Math.floor(part * 100)} %`;
}
