/** The route of both completion endpoints: a body becomes a job, and the job an answer or a stream, counted on its way. */
import { AbortError } from "../engine/errors.ts";
import type { Events } from "../engine/openai/events.ts";
import type { Host } from "../engine/openai/host.ts";
import { complete, type Job, stream } from "../engine/openai/job.ts";
import { readJson } from "./body.ts";
import { eventStream } from "./eventStream.ts";
import { httpError } from "./httpError.ts";
import type { RequestRecord } from "./record.ts";
import { modelOf, type Served } from "./served.ts";

/** Makes a job of a body, in which the model is called by a name. */
type MakeJob<Whole, Chunk extends object> = (
  host: Host,
  body: unknown,
  model: string,
) => Job<Whole, Chunk> | Promise<Job<Whole, Chunk>>;

/** Answers a request. The work ends when the client goes or the server ends. */
export async function answerRequest<Whole, Chunk extends object>(
  served: Served,
  request: Request,
  record: RequestRecord,
  makeJob: MakeJob<Whole, Chunk>,
): Promise<Response> {
  const entry = served.gate.enter(request.signal);
  try {
    const body = await readJson(request, served.bodyLimit);
    const job = await makeJob(served.engine, body, modelOf(served, body));
    const events = counted(job.events(entry.signal), job, served, record);
    if (!job.stream) return Response.json(await complete(job, events));
    const response = await eventStream(stream(job, events), {
      onLeft: entry.abort,
      onEnd: (error) => {
        entry.leave();
        served.onAnswered?.(record, error === undefined ? 200 : statusOf(error, served), error);
      },
    });
    record.streaming = true;
    return response;
  } finally {
    if (!record.streaming) entry.leave();
  }
}

/** The status for the log. 499 is nginx's, for a client that has gone, whom no status can reach. */
export function statusOf(error: unknown, { gate }: Served): number {
  return error instanceof AbortError && !gate.closing ? 499 : httpError(error).status;
}

/** Events as they are, with what they say added to the record and the metrics. */
async function* counted(
  events: Events,
  { choices, n }: Pick<Job<unknown, object>, "choices" | "n">,
  { metrics }: Served,
  record: RequestRecord,
): Events {
  let [ended, failed] = [0, false];
  try {
    for await (const event of events) {
      if (!event.echoed && event.tokens.length > 0) {
        metrics.generated(event.tokens.length);
        record.completionTokens += event.tokens.length;
        record.firstTokenMs ??= record.age;
      }
      if (event.end !== undefined) {
        ended++;
        metrics.finished(event.end, record.age / 1000);
        if (event.choice % n === 0) record.promptTokens += event.end.usage.promptTokens;
        if (event.choice % n === 0) record.cachedTokens += event.end.usage.cachedTokens;
      }
      yield event;
    }
  } catch (error) {
    failed = !(error instanceof AbortError);
    throw error;
  } finally {
    for (; ended < choices; ended++) metrics.broken(failed ? "error" : "abort");
  }
}
