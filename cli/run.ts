/** `ingle run`: streams an answer, runs several prompts as one batch, or holds a chat. */
import { addAbortSignal } from "node:stream";
import { text as readAll } from "node:stream/consumers";
import { isBegun } from "../engine/begunText.ts";
import type { Engine } from "../engine/engine.ts";
import { speedLine } from "../engine/speedLine.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { answer, batchSpeedLine, endingOf } from "./answer.ts";
import { chat } from "./chat.ts";
import type { Command, Context } from "./command.ts";
import { UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { given } from "./given.ts";
import { MODEL_FLAGS, OUTPUT_FLAGS, PLANNED_FLAGS } from "./modelFlags.ts";
import { engineOpener, modelName, wantsJson } from "./openEngine.ts";
import { print, printable } from "./output.ts";
import { PROFILE_FLAGS, profileTarget, writeProfile } from "./profile.ts";
import { promptProgress } from "./progress.ts";
import { runJson } from "./runJson.ts";
import { SAMPLING_FLAGS, samplingLine, samplingRequest } from "./samplingFlags.ts";
import { draftName, SPECULATION_FLAGS, speculationRequest } from "./speculationFlags.ts";
import { TOKEN_FLAGS, tokenLists } from "./tokenLists.ts";

const FLAGS = {
  ...MODEL_FLAGS,
  raw: { help: "no chat template: the prompt is continued as it is" },
  chat: { help: "the chat template, for the model that ships with ingle too (see below)" },
  system: { value: "TEXT", help: "what the chat's system message says" },
  ...TOKEN_FLAGS,
  ...SAMPLING_FLAGS,
  ...SPECULATION_FLAGS,
  ...PROFILE_FLAGS,
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof FLAGS>;

export const run: Command = {
  usage: "run [-m MODEL] [PROMPT]",
  summary: "streams an answer; without a prompt, a chat",
  flags: FLAGS,
  planned: {
    ...PLANNED_FLAGS,
    "json-schema": "answers are not constrained to a schema; check them afterwards",
  },
  more: `examples:
  ingle run "Once upon a time"
  ingle run -m ./SmolLM2-135M-Instruct --temperature 0 -n 64 "Why is the sky blue?"
  ingle run --raw --json "It was" | jq -j '.text // empty'
  git diff | ingle run -m ./model --system "Say in one line what changed."
The answer goes to stdout, all else to stderr. Without PROMPT it is read from a pipe; on a terminal a chat begins.
The model that ships with ingle tells stories and answers small questions. It continues a PROMPT that is the beginning
of a text (three words or more and no mark at the end) and answers any other; --raw and --chat decide.`,
  run: runCommand,
};

async function runCommand(args: Flags, context: Context): Promise<number> {
  const json = wantsJson(args);
  const speculation = given({ speculation: speculationRequest(args) });
  const request = { ...samplingRequest(args), ...speculation, signal: context.signal };
  for (const flag of ["logprobs", "prompt-logprobs"] as const)
    if (args.has(flag) && !json) throw new UsageError(`--${flag}: is shown in JSON only; add --json`);
  args.atMostOne("raw", "chat");
  if (args.has("raw") && args.has("system")) throw new UsageError("--system: has no place with --raw");
  const prompts = await promptsOf(args, context.signal);
  if (prompts === undefined && json) throw new UsageError("--json: a chat has no JSON; give a PROMPT or pipe one in");
  const open = engineOpener(args, context);
  const target = profileTarget(args);
  const engine = await open({ profiler: target?.profiler, draft: draftName(args) });
  try {
    context.reporter.detail(samplingLine(request, engine.model.generation));
    target?.profiler.start("run");
    const code = await answerAll(engine, prompts, request, args, context);
    if (target !== undefined) await writeProfile(target, engine, args, context.reporter);
    return code;
  } finally {
    await engine.close();
  }
}

/** Answers what was asked, or holds a chat where nothing was. Returns the exit code. */
async function answerAll(
  engine: Engine,
  prompts: readonly (string | number[])[] | undefined,
  request: GenerateRequest,
  args: Flags,
  context: Context,
): Promise<number> {
  const system = args.text("system");
  const templated = engine.model.template !== undefined;
  if (!templated && (system !== undefined || args.has("chat")))
    throw new UsageError(`--${system === undefined ? "chat" : "system"}: the model has no chat template`);
  if (prompts === undefined)
    return await chat(engine, {
      model: modelName(args),
      request,
      raw: args.has("raw") || !templated,
      system,
      context,
    });
  const requests = prompts.map((prompt) => {
    const raw = args.has("raw") || !templated || continues(args, prompt);
    return { ...request, ...promptFields(prompt, raw, system) };
  });
  const [only] = requests;
  if (wantsJson(args)) return await runJson(engine, requests);
  if (requests.length > 1 || only === undefined) return await runBatch(engine, requests, context);
  return await runOne(engine, only, context);
}

/** Texts or lists of ids; undefined where a chat is wanted. */
async function promptsOf(args: Flags, signal: AbortSignal): Promise<(string | number[])[] | undefined> {
  const lists = tokenLists(args);
  const [prompt, ...more] = args.positionals;
  if (more.length > 0)
    throw new UsageError(`PROMPT: ${args.positionals.length} words are given apart, expected one; put them in quotes`);
  if (lists !== undefined) {
    if (prompt !== undefined) throw new UsageError("PROMPT and --tokens: only one of them may be given");
    if (args.has("system")) throw new UsageError("--system and --tokens: only one of them may be given");
    return lists;
  }
  if (prompt !== undefined) return [prompt];
  if (process.stdin.isTTY) return undefined;
  const piped = (await readAll(addAbortSignal(signal, process.stdin))).replace(/\r?\n$/, "");
  if (piped.trim() === "")
    throw new UsageError('PROMPT: is not given, and nothing came from stdin; ingle run "Once upon a time"');
  return [piped];
}

function promptFields(prompt: string | number[], raw: boolean, system: string | undefined): GenerateRequest {
  if (typeof prompt !== "string") return { tokens: prompt };
  if (raw) return { prompt };
  const messages = [{ role: "user", content: prompt }];
  return { messages: system === undefined ? messages : [{ role: "system", content: system }, ...messages] };
}

/** Whether the prompt is one that the model that ships with ingle is to continue. */
function continues(args: Flags, prompt: string | number[]): boolean {
  if (typeof prompt !== "string" || modelName(args) !== "default") return false;
  return !args.has("chat") && !args.has("system") && isBegun(prompt);
}

/** One answer as it comes. */
async function runOne(engine: Engine, request: GenerateRequest, { reporter }: Context): Promise<number> {
  reporter.waiting("reading the prompt");
  const watched = { ...request, onPrompt: promptProgress(reporter) };
  const answered = await answer(engine, watched, ({ index, text }) => {
    if (index === 0) reporter.clear();
    print(shown(text));
  });
  reporter.clear();
  print("\n");
  reporter.say(speedLine(answered));
  const seed = answered.seed === undefined ? "no seed: proposals were drawn by chance" : `seed ${answered.seed}`;
  reporter.detail(`${seed} · ended by ${answered.finishReason}`);
  return endingOf([answered]);
}

/** Several at once; each is printed when all are there, in their order. */
async function runBatch(engine: Engine, requests: readonly GenerateRequest[], { reporter }: Context): Promise<number> {
  const start = performance.now();
  let tokens = 0;
  const answers = await Promise.all(
    requests.map((request) =>
      answer(engine, request, () => reporter.status(`${requests.length} prompts, ${++tokens} tokens so far`)),
    ),
  );
  reporter.clear();
  for (const [i, { text }] of answers.entries()) print(`[${i}] ${shown(text)}\n`);
  reporter.say(batchSpeedLine(answers, performance.now() - start));
  return endingOf(answers);
}

const shown = (text: string) => (process.stdout.isTTY ? printable(text) : text);
