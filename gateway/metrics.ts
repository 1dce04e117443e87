/**
 * What the server counts. What means the same as one of vLLM's metrics has its name, so that dashboards made for it show ingle;
 * what is ingle's own begins with `ingle:`.
 */
import type { ChoiceEnd } from "../engine/openai/events.ts";
import type { EngineStats } from "../engine/types.ts";
import { Counter, Histogram, metricText, type Sample } from "./prometheus.ts";

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640];
const SECONDS_A_TOKEN = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10];
const TOKENS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000];

/** What the metrics tell of an engine. */
export type ServedStats = Pick<EngineStats, "pages" | "running" | "waiting" | "preemptions" | "memory"> & {
  readonly device: Pick<EngineStats["device"], "dispatches" | "submits" | "lost">;
};

/** Counters of one server since it began. */
export class Metrics {
  readonly #promptTokens = new Counter();
  readonly #generated = new Counter();
  readonly #cached = new Counter();
  readonly #finished = new Counter();
  readonly #responses = new Counter();
  readonly #firstToken = new Histogram(SECONDS);
  readonly #perToken = new Histogram(SECONDS_A_TOKEN);
  readonly #whole = new Histogram(SECONDS);
  readonly #promptSizes = new Histogram(TOKENS);
  readonly #answerSizes = new Histogram(TOKENS);

  /** Tokens of an answer, as they come. */
  generated(tokens: number): void {
    this.#generated.add(tokens);
  }

  /** A choice that ended by itself. `seconds` are those since the request came. */
  finished({ reason, usage, timings }: ChoiceEnd, seconds: number): void {
    const { promptTokens, completionTokens, cachedTokens } = usage;
    this.#finished.add(1, { finished_reason: reason });
    this.#promptTokens.add(promptTokens);
    this.#cached.add(cachedTokens);
    if (promptTokens > 0) this.#promptSizes.observe(promptTokens); // several answers count their prompt once
    this.#answerSizes.observe(completionTokens);
    this.#whole.observe(seconds);
    if (completionTokens > 0) this.#firstToken.observe(timings.firstTokenMs / 1000);
    if (completionTokens > 1) this.#perToken.observe(timings.generatedMs / 1000 / (completionTokens - 1));
  }

  /** A choice that was left or failed before its end. */
  broken(reason: "abort" | "error"): void {
    this.#finished.add(1, { finished_reason: reason });
  }

  /** A response; `route` is one of the server's, so that there are few. */
  responded(route: string, status: number): void {
    this.#responses.add(1, { route, status: String(status) });
  }

  /** All of it as Prometheus reads it. */
  text(model: string, { pages, running, waiting, preemptions, device, memory }: ServedStats): string {
    const gauge = (name: string, help: string, value: number) => [name, "gauge", help, [{ value }]] as const;
    const total = (name: string, help: string, samples: readonly Sample[]) => [name, "counter", help, samples] as const;
    const spread = (name: string, help: string, of: Histogram) => [name, "histogram", help, of.samples()] as const;
    const used = pages.total === 0 ? 0 : pages.used / pages.total;
    const all = [
      gauge("vllm:num_requests_running", "sequences in the batch", running),
      gauge("vllm:num_requests_waiting", "sequences that wait for room in the batch", waiting),
      gauge("vllm:kv_cache_usage_perc", "pages held by sequences; 1 is all of them", used),
      total("vllm:num_preemptions_total", "sequences that gave their pages up", [{ value: preemptions }]),
      total("vllm:prefix_cache_queries_total", "prompt tokens looked up", this.#promptTokens.samples()),
      total("vllm:prefix_cache_hits_total", "prompt tokens found", this.#cached.samples()),
      total("vllm:prompt_tokens_total", "tokens of prompts", this.#promptTokens.samples()),
      total("vllm:generation_tokens_total", "tokens of answers", this.#generated.samples()),
      total("vllm:request_success_total", "answers by how they ended", this.#finished.samples()),
      spread("vllm:time_to_first_token_seconds", "until the first token", this.#firstToken),
      spread("vllm:request_time_per_output_token_seconds", "a token after the first", this.#perToken),
      spread("vllm:e2e_request_latency_seconds", "until the last token", this.#whole),
      spread("vllm:request_prompt_tokens", "tokens of a prompt", this.#promptSizes),
      spread("vllm:request_generation_tokens", "tokens of an answer", this.#answerSizes),
      total("ingle:http_responses_total", "responses by route and status", this.#responses.samples()),
      gauge("ingle:pages_cached", "pages kept for prompts that begin alike", pages.cached),
      total("ingle:gpu_dispatches_total", "dispatches", [{ value: device.dispatches }]),
      total("ingle:gpu_submits_total", "submissions", [{ value: device.submits }]),
      ["ingle:memory_bytes", "gauge", "memory on the GPU", memorySamples(memory)] as const,
    ];
    return all
      .map(([name, type, help, samples]) => metricText(name, type, help, samples, { model_name: model }))
      .join("");
  }
}

function memorySamples(memory: ServedStats["memory"]): Sample[] {
  return Object.entries(memory).map(([kind, value]) => ({ labels: { kind }, value }));
}
