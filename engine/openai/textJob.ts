/** `/v1/completions`: prompts as texts or ids, echoed and scored where asked for, and what comes of them in OpenAI's shape. */
import { MAX_TOP } from "../../kernels/log_probs.ts";
import type { GenerateRequest } from "../types.ts";
import { answersOf, merged, scorePrompt, untilLeft } from "./choices.ts";
import { type Events, promptEnd, type ScoredToken } from "./events.ts";
import { type Body, booleanField, checkNames, integerField, RequestFieldError } from "./fields.ts";
import type { Host } from "./host.ts";
import { identity } from "./identity.ts";
import { DELIVERY_NAMES, delivery, type Job } from "./job.ts";
import type { Leave } from "./leave.ts";
import { inTheirNames, SAMPLING_NAMES, samplingFields } from "./sampling.ts";
import type { TextCompletion } from "./shapes.ts";
import { TextTeller } from "./textAnswer.ts";

const NAMES = ["prompt", ...DELIVERY_NAMES, "max_tokens", "logprobs", "echo", ...SAMPLING_NAMES];
const MAX_CHOICES = 256; // prompts times answers: what is asked for in one go waits in the engine
const TURN = 5; // ms of encoding without a pause
const DEFAULT_MAX_TOKENS = 16; // OpenAI's, at this endpoint
const THEIR_NAMES = { prompt: "prompt", tokens: "prompt", maxTokens: "max_tokens", logprobs: "logprobs" };

const ASKS_NOTHING = {
  suffix: (value: unknown) => value === "",
  best_of: (value: unknown) => value === 1,
};

/** Texts that are ready to be continued. */
export type TextJob = Job<TextCompletion, TextCompletion>;

/** Throws InvalidRequestError and ContextLengthError in the words of the body. */
export async function textJob(host: Host, body: unknown, model: string): Promise<TextJob> {
  const fields = checkNames(body, NAMES, ASKS_NOTHING);
  try {
    return await makeJob(host, fields, model);
  } catch (error) {
    throw inTheirNames(error, THEIR_NAMES);
  }
}

/** How each prompt is continued. */
interface Plan {
  readonly host: Host;
  readonly n: number;
  readonly maxTokens: number;
  readonly sampling: GenerateRequest;
  readonly echo: boolean;
  /** Best tokens at each place of the prompt that are computed; undefined: it is not scored. */
  readonly scored: number | undefined;
}

/** A prompt as it was given, and its ids. */
interface Prompt {
  readonly text: string;
  readonly tokens: readonly number[];
}

async function makeJob(host: Host, fields: Body, model: string): Promise<TextJob> {
  const how = delivery(fields, MAX_TOP);
  const top = integerField(fields, "logprobs", 0, MAX_TOP);
  const echo = booleanField(fields, "echo");
  const maxTokens = integerField(fields, "max_tokens", 0, 2 ** 31) ?? DEFAULT_MAX_TOKENS;
  const prompts = await readPrompts(host, promptsOf(fields, how.n), echo);
  const wanted = [how.promptTop, echo ? top : undefined].filter((count) => count !== undefined);
  const plan: Plan = {
    host,
    n: how.n,
    maxTokens,
    sampling: samplingFields(fields, { maxTokens, logprobs: top }),
    echo,
    scored: wanted.length === 0 ? undefined : Math.max(...wanted),
  };
  const teller = new TextTeller(host, identity("cmpl", model), { top, promptTop: how.promptTop });
  async function* run(leave: Leave): Events {
    try {
      yield* merged(prompts.map((prompt, i) => continuations(plan, prompt, i * how.n, teller, leave)));
    } catch (error) {
      throw inTheirNames(error, THEIR_NAMES);
    }
  }
  return {
    ...how,
    choices: prompts.length * how.n,
    events: (signal) => untilLeft(signal, run),
    whole: (choices, totals) => teller.whole(choices, totals),
    chunks: (event) => teller.chunks(event),
    usageChunk: () => teller.completion([]),
  };
}

/** The choices of one prompt, which are numbered from `first` on. */
async function* continuations(plan: Plan, prompt: Prompt, first: number, teller: TextTeller, leave: Leave): Events {
  const { host, n, scored, maxTokens, sampling } = plan;
  const { tokens } = prompt;
  const begun = performance.now();
  const request = { ...sampling, tokens };
  const scores = scored === undefined ? undefined : await scorePrompt(host, request, scored, leave);
  const end = promptEnd(tokens.length, performance.now() - begun);
  for (let choice = first; choice < first + n; choice++) {
    if (scores !== undefined) teller.prompts.set(choice, scores);
    if (plan.echo) yield echo(prompt, choice, scores);
    if (maxTokens === 0) yield { choice, text: "", tokens: [], echoed: false, end };
  }
  if (maxTokens > 0) yield* answersOf(host, { ...request, n }, first, leave);
}

function echo({ text, tokens }: Prompt, choice: number, scores: readonly ScoredToken[] | undefined) {
  return { choice, text, tokens: scores ?? tokens.map((token) => ({ token, logprob: null, top: [] })), echoed: true };
}

/** The prompts of a body: one or a list, each a text or ids. */
function promptsOf({ prompt }: Body, n: number): readonly unknown[] {
  const isIds = Array.isArray(prompt) && typeof prompt[0] === "number";
  const list: readonly unknown[] = typeof prompt === "string" || isIds ? [prompt] : Array.isArray(prompt) ? prompt : [];
  if (list.length === 0)
    throw new RequestFieldError(
      "prompt",
      "prompt: expected a text, a list of token ids, or a list of such that is not empty",
    );
  if (list.length * n > MAX_CHOICES) {
    const what = `prompt: ${list.length} prompts of ${n} answers each`;
    throw new RequestFieldError("prompt", `${what}, expected at most ${MAX_CHOICES} answers in one request`);
  }
  return list;
}

/** Reads them in turns with whatever else there is to do: encoding all of a long list would hold the batch up. */
async function readPrompts(host: Host, given: readonly unknown[], echo: boolean): Promise<Prompt[]> {
  const prompts: Prompt[] = [];
  let begun = performance.now();
  for (const prompt of given) {
    prompts.push(readPrompt(host, prompt, echo));
    if (performance.now() - begun < TURN) continue;
    await new Promise((resolve) => void setTimeout(resolve, 0));
    begun = performance.now();
  }
  return prompts;
}

function readPrompt(host: Host, prompt: unknown, echo: boolean): Prompt {
  if (typeof prompt === "string") return { text: prompt, tokens: host.encode({ prompt }) };
  if (!Array.isArray(prompt))
    throw new RequestFieldError(
      "prompt",
      "prompt: expected texts and lists of token ids, found something else in the list",
    );
  const tokens = host.encode({ tokens: prompt });
  const text = echo ? (host.model.tokenizer?.decode(tokens, { skipSpecial: false }) ?? "") : "";
  return { text, tokens };
}
