/** How an answer is drawn and where it ends: flags of `ingle run`, and the request they make. */
import type { GenerateRequest } from "../engine/types.ts";
import { MAX_TOP } from "../kernels/log_probs.ts";
import type { GenerationDefaults } from "../models/generationConfig.ts";
import { UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { given } from "./given.ts";
import { idsWithCommas } from "./tokenLists.ts";

/** Flags that say how tokens are drawn. */
export const SAMPLING_FLAGS = {
  "max-tokens": { short: "n", value: "N", help: "tokens of the answer at most (default up to the end of the context)" },
  temperature: { value: "T", help: "0 always takes the likeliest token" },
  "top-k": { value: "K", help: "draw among the K likeliest tokens; 0 is off" },
  "top-p": { value: "P", help: "draw among the likeliest tokens that together have probability P" },
  "min-p": { value: "P", help: "leave out tokens below P times the likeliest one's probability" },
  "typical-p": {
    value: "P",
    help: "draw among the tokens of about the expected surprise that together have probability P; 1 is off",
  },
  "repeat-penalty": { value: "R", help: "above 1: less of what the prompt and the answer have already; 1 is off" },
  "presence-penalty": { value: "X", help: "taken off the logits of tokens that the answer has; -2 to 2" },
  "frequency-penalty": { value: "X", help: "the same, as often as the answer has them; -2 to 2" },
  "logit-bias": {
    value: "ID=BIAS",
    repeat: true,
    help: "added to the logit of a token, -100 to 100; may be given several times",
  },
  "allowed-ids": { value: "ID,ID", help: "the only tokens that are drawn" },
  "bad-word": { value: "TEXT", repeat: true, help: "is not in the answer; may be given several times" },
  "min-tokens": { value: "N", help: "tokens before which nothing ends the answer (default 0)" },
  seed: { value: "N", help: "the same seed gives the same answer (default a random one)" },
  stop: { value: "TEXT", repeat: true, help: "ends the answer before this text; may be given several times" },
  "ignore-eos": { help: "go on where the model would end" },
  logprobs: { value: "N", help: `with --json: the N likeliest tokens at each place, at most ${MAX_TOP}` },
  "prompt-logprobs": {
    value: "N",
    help: "with --json: the prompt's log-probabilities, and the N likeliest tokens at each place",
  },
  "parse-special": { help: "control tokens spelt in what you type become control tokens (with --raw they do already)" },
  "chat-template-kwargs": { value: "JSON", help: "more variables for the chat template" },
} as const satisfies FlagTable;

const MANY = 2 ** 31 - 1;

/** The request's fields besides the prompt. Throws UsageError that names the flag. */
export function samplingRequest(args: Arguments<keyof typeof SAMPLING_FLAGS>): GenerateRequest {
  const stop = args.all("stop");
  const badWords = args.all("bad-word");
  const allowed = args.text("allowed-ids");
  if (badWords.includes("")) throw new UsageError("--bad-word: is empty, expected a text");
  if (stop.includes("")) throw new UsageError("--stop: is empty, expected a text");
  return given({
    maxTokens: args.integer("max-tokens", 1, MANY),
    temperature: args.number("temperature", 0, 1e4),
    topK: args.integer("top-k", 0, MANY),
    topP: args.number("top-p", 0, 1),
    minP: args.number("min-p", 0, 1),
    typicalP: args.number("typical-p", 0, 1, { open: true }),
    repetitionPenalty: args.number("repeat-penalty", 0, 1000, { open: true }),
    presencePenalty: args.number("presence-penalty", -2, 2),
    frequencyPenalty: args.number("frequency-penalty", -2, 2),
    logitBias: biases(args.all("logit-bias")),
    allowedTokenIds: allowed === undefined ? undefined : idsWithCommas(allowed, "--allowed-ids"),
    badWords: badWords.length === 0 ? undefined : badWords,
    minTokens: args.integer("min-tokens", 0, MANY),
    seed: args.integer("seed", 0, Number.MAX_SAFE_INTEGER),
    logprobs: args.integer("logprobs", 0, MAX_TOP),
    promptLogprobs: args.integer("prompt-logprobs", 0, MAX_TOP),
    chatTemplateKwargs: args.object("chat-template-kwargs"),
    stop: stop.length === 0 ? undefined : stop,
    ignoreEos: args.has("ignore-eos") || undefined,
    parseSpecial: args.has("parse-special") || undefined,
  });
}

/** Biases by token id. "7=-3", or as llama.cpp has it "7-3" and "7+3". */
function biases(given: readonly string[]): Record<number, number> | undefined {
  if (given.length === 0) return undefined;
  const pairs = given.map((text) => {
    const [, id, bias] = /^(\d+)(?:=|(?=[+-]))([+-]?\d+(?:\.\d+)?)$/.exec(text) ?? [];
    const value = Number(bias);
    if (id === undefined || !(Math.abs(value) <= 100))
      throw new UsageError(`--logit-bias: is ${JSON.stringify(text)}, expected ID=BIAS, a bias from -100 to 100`);
    return [Number(id), value] as const;
  });
  return Object.fromEntries(pairs);
}

/** What is in force, and who said so: for --verbose. */
export function samplingLine(request: GenerateRequest, defaults: GenerationDefaults): string {
  const from = <T>(name: string, own: T | undefined, file: T | undefined, otherwise: T) => {
    if (own !== undefined) return `${name} ${own} (yours)`;
    return file === undefined ? `${name} ${otherwise} (default)` : `${name} ${file} (generation_config.json)`;
  };
  const greedy = defaults.doSample === false && request.temperature === undefined;
  return [
    greedy ? "greedy (do_sample false in generation_config.json)" : "",
    greedy ? "" : from("temperature", request.temperature, defaults.temperature, 1),
    from("top-k", request.topK, defaults.topK, 0),
    from("top-p", request.topP, defaults.topP, 1),
    from("min-p", request.minP, defaults.minP, 0),
    from("typical-p", request.typicalP, defaults.typicalP, 1),
    from("repeat-penalty", request.repetitionPenalty, defaults.repetitionPenalty, 1),
    from("presence-penalty", request.presencePenalty, undefined, 0),
    from("frequency-penalty", request.frequencyPenalty, undefined, 0),
    from("min-tokens", request.minTokens, defaults.minNewTokens, 0),
    request.seed === undefined ? "a random seed" : `seed ${request.seed}`,
  ]
    .filter((part) => part !== "")
    .join(" · ");
}
