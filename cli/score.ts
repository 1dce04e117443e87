/** `ingle score`: the log-probability of every token of a text, and its perplexity. */
import type { Engine } from "../engine/engine.ts";
import { InvalidRequestError } from "../engine/errors.ts";
import type { ScoreResult } from "../engine/types.ts";
import { MAX_TOP } from "../kernels/log_probs.ts";
import { escapeName } from "../models/weights/escape.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { inOrder } from "./inOrder.ts";
import { LogitsFile } from "./logitsFile.ts";
import { MODEL_FLAGS, OUTPUT_FLAGS, PLANNED_FLAGS } from "./modelFlags.ts";
import { engineOpener, modelName, wantsJson } from "./openEngine.ts";
import { jsonLine, print, table } from "./output.ts";
import { PROFILE_FLAGS, profileTarget, writeProfile } from "./profile.ts";
import { bar } from "./progress.ts";
import { readText, TOKEN_FLAGS, tokenLists } from "./tokenLists.ts";
import { mostBytes } from "./weightLabel.ts";

const FLAGS = {
  ...MODEL_FLAGS,
  text: { value: "TEXT", help: "the text to score" },
  file: { value: "FILE", help: "a file with the text to score" },
  ...TOKEN_FLAGS,
  top: { value: "N", help: `the N likeliest tokens at each place, at most ${MAX_TOP}` },
  experts: { help: "the experts that each token goes to, by mixture layer, highest weight first" },
  full: { value: "FILE", help: "writes all logits: a safetensors file with logits.0 F32 [tokens, vocabulary], …" },
  ...PROFILE_FLAGS,
  ...OUTPUT_FLAGS,
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof FLAGS>;

/** Texts in the engine at once: enough to fill its batch, and few enough that results do not pile up. */
const AT_ONCE = 32;

export const score: Command = {
  usage: "score [-m MODEL] (--text TEXT | --file FILE | --tokens 1,2,3 | --tokens-file FILE)",
  summary: "log-probability of every token, perplexity",
  flags: FLAGS,
  planned: PLANNED_FLAGS,
  more: `examples:
  ingle score --text "Once upon a time there was a little girl."
  ingle score -m ./model --file chapter.txt --json | jq .perplexity
Log-probabilities are natural logarithms of the model's own distribution: before temperature and other sampling.`,
  run: scoreCommand,
};

async function scoreCommand(args: Flags, context: Context): Promise<number> {
  const json = wantsJson(args);
  const top = args.integer("top", 0, MAX_TOP) ?? 0;
  const experts = args.has("experts");
  args.atMostOne("text", "file", "tokens", "tokens-file");
  if (args.positionals.length > 0)
    throw new UsageError(`${args.positionals[0]}: score takes the text by --text or --file`);
  const lists = tokenLists(args);
  const file = args.text("file");
  const text = file === undefined ? args.text("text") : readText(file, "--file");
  if (lists === undefined && text === undefined)
    throw new UsageError("score: nothing to score, expected --text, --file, --tokens or --tokens-file");
  if (text === "") throw new UsageError("score: the text is empty, expected at least one token");
  const full = args.text("full");
  const open = engineOpener(args, context);
  const target = profileTarget(args);
  const engine = await open({ profiler: target?.profiler });
  try {
    const prompts = lists ?? [encode(engine, text ?? "")];
    const logits = full === undefined ? undefined : LogitsFile.create(full, prompts, engine.model.config.vocab_size);
    try {
      target?.profiler.start("score");
      await scoreAll(engine, prompts, { model: modelName(args), top, experts, json, logits, context });
      logits?.close();
    } catch (error) {
      logits?.discard();
      throw error;
    }
    if (target !== undefined) await writeProfile(target, engine, args, context.reporter);
    return EXIT.done;
  } finally {
    await engine.close();
  }
}

function encode({ model: { tokenizer } }: Engine, text: string): number[] {
  if (tokenizer === undefined)
    throw new InvalidRequestError("text: the model has no tokenizer.json; give ids by --tokens instead");
  return tokenizer.encode(text, { addSpecialTokens: true, parseSpecial: true });
}

interface ScoreOptions {
  readonly model: string;
  readonly top: number;
  readonly experts: boolean;
  readonly json: boolean;
  readonly logits: LogitsFile | undefined;
  readonly context: Context;
}

async function scoreAll(
  engine: Engine,
  prompts: readonly number[][],
  { model, top, experts, json, logits, context: { reporter, signal } }: ScoreOptions,
): Promise<void> {
  const about = { adapter: engine.gpu.adapter.name, weights: mostBytes(engine.model.weights.matrices) };
  reporter.waiting("scoring");
  const start = performance.now();
  const total = prompts.reduce((sum, { length }) => sum + length, 0);
  let scored = 0;
  const one = (tokens: readonly number[], index: number) =>
    engine.score({
      tokens,
      top,
      experts,
      signal,
      onProgress: () => reporter.status(`scoring ${bar(++scored / total)} of ${total} tokens`),
      ...(logits === undefined ? {} : { onLogits: (position, row) => logits.write(index, position, row) }),
    });
  let tokens = 0;
  for await (const result of inOrder(prompts, AT_ONCE, one)) {
    reporter.clear();
    tokens += result.tokens.length;
    // Without --top there are no best tokens: an empty list a place would only be noise.
    const shown = top === 0 ? { ...result, top: result.top.map(() => null) } : result;
    print(json ? jsonLine({ model, ...shown, ...about }) : report(result, engine, top));
  }
  const seconds = (performance.now() - start) / 1000;
  reporter.say(`scored ${tokens} tok ${(tokens / seconds).toFixed(1)} tok/s · ${about.weights} on ${about.adapter}`);
}

/** A row a token, and the perplexity. */
function report(
  { tokens, texts, logprobs, top, perplexity, experts }: ScoreResult,
  { model }: Engine,
  best: number,
): string {
  const nameOf = (id: number) => (model.tokenizer === undefined ? String(id) : quoted(model.tokenizer.tokenText(id)));
  const rows = tokens.map((id, i) => [
    String(i),
    String(id),
    ...(texts === null ? [] : [quoted(texts[i] ?? "")]),
    logprobs[i]?.toFixed(4) ?? "-",
    ...(best === 0
      ? []
      : [(top[i] ?? []).map(({ token, logprob }) => `${nameOf(token)} ${logprob.toFixed(2)}`).join("  ")]),
    ...(experts === undefined ? [] : [experts.map((layer) => (layer[i] ?? []).join(",")).join(" ")]),
  ]);
  const head = [
    ">place",
    ">token",
    ...(texts === null ? [] : ["text"]),
    ">logprob",
    ...(best === 0 ? [] : ["likeliest"]),
    ...(experts === undefined ? [] : ["experts"]),
  ];
  const summary = perplexity === null ? "one token has no perplexity" : `perplexity ${perplexity.toPrecision(6)}`;
  return `${table(head, rows)}${summary}\n`;
}

const quoted = (text: string) => `"${escapeName(text)}"`;
