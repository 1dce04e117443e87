/** The chat on a terminal: lines in, answers out, what was said before kept. */
import { createInterface, type Interface } from "node:readline";
import { IngleError } from "../device/errors.ts";
import type { Engine } from "../engine/engine.ts";
import { speedLine } from "../engine/speedLine.ts";
import type { GenerateRequest } from "../engine/types.ts";
import type { Message } from "../models/text/messages.ts";
import { answer } from "./answer.ts";
import type { Context } from "./command.ts";
import { EXIT } from "./errors.ts";
import { print, printable } from "./output.ts";
import { promptProgress } from "./progress.ts";

const HELP = `/help          this
/clear         forget what was said
/system TEXT   what the system message says from now on; /system alone drops it
/exit          leave, as Ctrl-D does
Ctrl-C stops the answer, twice leaves.`;

interface ChatOptions {
  /** As the user named it. */
  readonly model: string;
  readonly request: GenerateRequest;
  /** No template: every line is continued by itself. */
  readonly raw: boolean;
  readonly system: string | undefined;
  readonly context: Context;
}

/** Runs until the user leaves; returns the exit code. */
export async function chat(engine: Engine, options: ChatOptions): Promise<number> {
  const input = createInterface({ input: process.stdin, output: process.stderr, prompt: "> " });
  const session = new Session(engine, options, input);
  const leave = () => input.close();
  options.context.signal.addEventListener("abort", leave, { once: true });
  try {
    return await session.run();
  } finally {
    options.context.signal.removeEventListener("abort", leave);
    input.close();
  }
}

class Session {
  readonly #engine: Engine;
  readonly #options: ChatOptions;
  readonly #input: Interface;
  #system: string | undefined;
  #said: Message[] = [];
  #answering: AbortController | undefined;
  /** Whether the last thing that happened was a Ctrl-C. */
  #warned = false;
  #interrupted = false;
  /** Input has ended: a prompt would throw. */
  #closed = false;

  constructor(engine: Engine, options: ChatOptions, input: Interface) {
    [this.#engine, this.#options, this.#input, this.#system] = [engine, options, input, options.system];
    input.on("SIGINT", () => this.#interrupt());
    input.once("close", () => {
      this.#closed = true;
    });
  }

  async run(): Promise<number> {
    const { reporter } = this.#options.context;
    const kind = this.#options.raw ? "every line is continued by itself" : "what was said is kept";
    reporter.say(`a chat with ${this.#options.model}: ${kind}; /help tells more, Ctrl-D leaves`);
    this.#input.prompt();
    for await (const line of this.#input) {
      this.#warned = false;
      if (line.startsWith("/")) {
        if (!this.#command(line.trim())) break;
      } else if (line.trim() !== "") await this.#turn(line);
      if (this.#interrupted || this.#closed) break;
      this.#input.prompt();
    }
    return this.#interrupted ? EXIT.interrupted : EXIT.done;
  }

  #interrupt(): void {
    this.#answering?.abort();
    if (this.#warned) {
      this.#interrupted = true;
      this.#input.close();
      return;
    }
    this.#warned = true;
    if (this.#answering !== undefined) return;
    process.stderr.write("\n(Ctrl-C again leaves)\n");
    if (!this.#closed) this.#input.prompt();
  }

  /** Whether the chat goes on. */
  #command(line: string): boolean {
    const [, name = "", rest = ""] = /^(\S+)\s*(.*)$/s.exec(line) ?? [];
    const { reporter } = this.#options.context;
    if (name === "/exit" || name === "/quit") return false;
    if (name === "/clear") this.#said = [];
    else if (name === "/system") {
      this.#system = rest === "" ? undefined : rest;
      if (this.#options.raw) reporter.say("there is no chat template: a system message has no place");
    } else {
      if (name !== "/help") reporter.say(`${name}: there is no such command`);
      reporter.say(HELP);
    }
    return true;
  }

  async #turn(line: string): Promise<void> {
    const { request, raw, context } = this.#options;
    const stop = new AbortController();
    this.#answering = stop;
    const user: Message = { role: "user", content: line };
    const system = this.#system === undefined ? [] : [{ role: "system", content: this.#system }];
    const prompt = raw ? { prompt: line } : { messages: [...system, ...this.#said, user] };
    const signal = AbortSignal.any([context.signal, stop.signal]);
    context.reporter.waiting("reading the prompt");
    try {
      const answered = await answer(
        this.#engine,
        { ...request, ...prompt, signal, onPrompt: promptProgress(context.reporter) },
        ({ index, text }) => {
          if (index === 0) context.reporter.clear();
          print(process.stdout.isTTY ? printable(text) : text);
        },
      );
      context.reporter.clear();
      print("\n");
      context.reporter.say(speedLine(answered));
      if (answered.text !== "") this.#said.push(user, { role: "assistant", content: answered.text });
    } catch (error) {
      // What is wrong with one turn (too long, a template's refusal) is said, and the chat goes on.
      if (!(error instanceof IngleError) || error.code === "DEVICE_LOST") throw error;
      context.reporter.clear();
      process.stderr.write(`${printable(error.message)}\n`);
    } finally {
      this.#answering = undefined;
    }
  }
}
