/** An engine without a GPU: it says what a test scripts, through the same checks, tokenizer and answer stream as the real one. */
import { openFolder } from "../device/nodeFiles.ts";
import { AnswerStream } from "../engine/answerStream.ts";
import { AbortError } from "../engine/errors.ts";
import { PartQueue } from "../engine/partQueue.ts";
import { type ContextLimits, chatPrompt, promptTokens } from "../engine/promptTokens.ts";
import { type RequestContext, type ResolvedRequest, resolveGenerate, resolveScore } from "../engine/request.ts";
import { Sequence } from "../engine/sequence.ts";
import type {
  ChatFields,
  GenerateRequest,
  Part,
  PromptFields,
  ScoreRequest,
  ScoreResult,
  TokenLogprob,
} from "../engine/types.ts";
import type { ServedStats } from "../gateway/metrics.ts";
import type { ServedEngine } from "../gateway/served.ts";
import { readGenerationConfig } from "../models/generationConfig.ts";
import { chatTemplate, loadChatTemplate } from "../models/text/chatTemplate.ts";
import { loadTokenizer, type Tokenizer } from "../models/text/tokenizer.ts";

/** What a fake engine says and does. */
export interface Script {
  /** Said over and over, in tokens of the default model; then, if `ends`, its end. */
  readonly text?: string;
  readonly ends?: boolean;
  readonly context?: number;
  /** Instead of the default model's own. */
  readonly template?: string;
  /** Waited for before each token. */
  readonly beforeToken?: (index: number, request: GenerateRequest) => Promise<void> | void;
}

const EOS = 2; // <|im_end|> of the default model

/** An engine that says what it is told. `location` is a folder with a tokenizer. */
export class FakeEngine implements ServedEngine {
  readonly model: { readonly location: string; readonly tokenizer: Tokenizer };
  readonly plan: ContextLimits;
  readonly asked: GenerateRequest[] = [];
  readonly scored: ScoreRequest[] = [];
  /** Answers in it now, and tokens made since it began. */
  running = 0;
  made = 0;
  /** How often its device was lost. */
  lost = 0;
  readonly #script: Script;
  readonly #context: RequestContext;
  readonly #says: readonly number[];

  static async load(script: Script = {}): Promise<FakeEngine> {
    const folder = openFolder(new URL("../models/default/", import.meta.url));
    const [tokenizer, template] = [await loadTokenizer(folder), await loadChatTemplate(folder)];
    if (tokenizer === undefined) throw new Error("models/default has no tokenizer");
    const context = script.context ?? 256;
    return new FakeEngine(script, {
      tokenizer,
      template: script.template === undefined ? template : chatTemplate("a script", script.template),
      defaults: readGenerationConfig({}),
      stopIds: [EOS],
      vocabulary: tokenizer.size,
      context,
      longest: context,
      trained: context,
      draft: false,
      takesBack: true,
      randomSeed: () => 42,
    });
  }

  private constructor(script: Script, context: RequestContext) {
    const { tokenizer } = context;
    if (tokenizer === undefined) throw new Error("a fake engine needs a tokenizer");
    this.#script = script;
    this.#context = context;
    this.model = { location: "/somewhere/fake-model", tokenizer };
    this.plan = context;
    const text = script.text ?? " the cat sat on the mat";
    this.#says = [
      ...tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false }),
      ...(script.ends === true ? [EOS] : []),
    ];
  }

  encode(prompt: PromptFields): readonly number[] {
    return promptTokens(prompt, this.#context);
  }

  applyTemplate(chat: ChatFields): string {
    return chatPrompt(chat, this.#context).text;
  }

  async *generate(request: GenerateRequest): AsyncGenerator<Part, void, undefined> {
    const resolved = resolveGenerate(request, this.#context);
    this.asked.push(request);
    const queue = new PartQueue(resolved.n);
    const open = Array.from({ length: resolved.n }, (_, choice) => {
      const own = { ...resolved, sampling: { ...resolved.sampling, choice } };
      return { sequence: sequenceOf(own), answer: new AnswerStream(own, this.model.tokenizer, queue) };
    });
    const parts = queue.parts();
    this.running += resolved.n;
    const heard = () => {}; // as the engine does, so that Node may complain of too many
    request.signal?.addEventListener("abort", heard, { once: true });
    try {
      for (let i = 0; ; i++) {
        await this.#script.beforeToken?.(i, request);
        await new Promise((resolve) => setImmediate(resolve));
        if (request.signal?.aborted === true) throw new AbortError("generate: aborted by its signal");
        const token = this.#says[i % this.#says.length] ?? EOS;
        for (const one of [...open]) {
          this.made++;
          const output = { token, logprob: -0.5, top: best(token, resolved.top), finite: true };
          if (one.answer.take(output, one.sequence)) open.splice(open.indexOf(one), 1);
          const { value } = await parts.next();
          if (value !== undefined) yield value;
        }
        if (open.length === 0) return;
      }
    } finally {
      request.signal?.removeEventListener("abort", heard);
      this.running -= resolved.n;
    }
  }

  /** Every token of a text has the log-probability -1 and is the likeliest, but those at odd places. */
  async score(request: ScoreRequest): Promise<ScoreResult> {
    const { tokens, top } = resolveScore(request, this.#context);
    this.scored.push(request);
    const logprobs = tokens.map((_, i) => (i === 0 ? null : i % 2 === 1 ? -1 : -0.5));
    const tops = tokens.map((token, i) => (i === 0 ? null : best(i % 2 === 1 ? token + 1 : token, top)));
    return { tokens, texts: null, logprobs, top: tops, perplexity: 1 };
  }

  stats(): ServedStats {
    return {
      pages: { total: 100, used: 25, cached: 5 },
      running: this.running,
      waiting: 0,
      preemptions: 0,
      device: { dispatches: 7, submits: 1, lost: this.lost },
      memory: { weights: 1000, kv: 200, states: 0, arena: 30 },
    };
  }
}

/** The token with -0.5, and others below it. */
function best(token: number, count: number): TokenLogprob[] {
  return Array.from({ length: count }, (_, i) => ({ token: i === 0 ? token : 300 + i, logprob: -0.5 - i }));
}

function sequenceOf({ tokens, sampling }: ResolvedRequest): Sequence {
  return new Sequence({
    tokens,
    kind: "generate",
    sampling,
    top: 0,
    logits: false,
    experts: false,
    ropeVariant: () => 0,
    onOutput: () => false,
    onError: () => {},
  });
}
