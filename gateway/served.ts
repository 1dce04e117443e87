/** What a gateway serves, to whom, and within which limits. */
import type { Host } from "../engine/openai/host.ts";
import type { ContextLimits } from "../engine/promptTokens.ts";
import type { ChatFields } from "../engine/types.ts";
import type { Gate } from "./gate.ts";
import { HttpError } from "./httpError.ts";
import type { Metrics, ServedStats } from "./metrics.ts";
import type { RequestRecord } from "./record.ts";

/** An engine, as far as a gateway sees it. */
export interface ServedEngine extends Host {
  readonly plan: ContextLimits;
  stats(): ServedStats;
  applyTemplate(chat: ChatFields): string;
}

/** How a gateway is made. */
export interface GatewayOptions {
  readonly engine: ServedEngine;
  /** What requests may call the model; the first is what answers call it. */
  readonly names: readonly [string, ...string[]];
  /** Keys, one of which every request but `/health` must have; none: nobody is asked. */
  readonly keys: readonly string[];
  /** Origins whose pages may ask; "*" is all. */
  readonly origins: readonly string[];
  /** Whether only this machine can reach the server: then names of other machines are refused where there is no key. */
  readonly local: boolean;
  /** Bytes of a body. */
  readonly bodyLimit: number;
  /** Requests that are answered at once. */
  readonly requestLimit: number;
  /** Told of each request once all of its answer is made. */
  readonly onAnswered?: (record: RequestRecord, status: number, error?: unknown) => void;
}

/** What the routes share. */
export interface Served extends GatewayOptions {
  readonly gate: Gate;
  readonly metrics: Metrics;
  /** Seconds since 1970. */
  readonly since: number;
}

/** The name that an answer calls the model by. Throws HttpError where the body's `model` is another one. */
export function modelOf({ names }: Served, body: unknown): string {
  const model = typeof body === "object" && body !== null && "model" in body ? (body.model ?? undefined) : undefined;
  if (model !== undefined && !names.some((name) => name === model)) {
    const what = `model: ${JSON.stringify(model).slice(0, 100)} is not served here, expected ${names.join(" or ")}`;
    throw new HttpError(404, what, { param: "model", code: "model_not_found" });
  }
  return typeof model === "string" ? model : names[0];
}
