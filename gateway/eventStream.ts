/** Chunks as server-sent events, made no faster than the client reads them. */
import { AbortError } from "../engine/errors.ts";
import { httpError } from "./httpError.ts";

const HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  "x-accel-buffering": "no", // nginx would gather events otherwise
} as const;

/** What a stream tells whoever began it. */
export interface StreamNews {
  /** The client has gone: whatever chunks wait for is to fail. */
  onLeft(): void;
  /** Nothing more is made; told once. */
  onEnd(error?: unknown): void;
}

/**
 * The response. It begins once there is a first chunk: what goes wrong before is thrown, and gets a status of its own; what goes
 * wrong later is the stream's last event, in the shape of an error's body.
 */
export async function eventStream(
  chunks: AsyncGenerator<object, void, undefined>,
  { onLeft, onEnd }: StreamNews,
): Promise<Response> {
  let ready: IteratorResult<object, void> | undefined = await chunks.next();
  let ended = false;
  const settle = (error?: unknown) => {
    if (!ended) onEnd(error);
    ended = true;
  };
  const body = new ReadableStream<Uint8Array>(
    {
      // Called when a reader waits, and not again before it resolves: this is what holds a fast model back for a slow client.
      async pull(controller) {
        try {
          const { done, value } = ready ?? (await chunks.next());
          ready = undefined;
          controller.enqueue(eventBytes(done === true ? "[DONE]" : JSON.stringify(value)));
          if (done !== true) return;
          controller.close();
          settle();
        } catch (error) {
          end(controller, error);
          settle(error);
        }
      },
      async cancel() {
        onLeft();
        await chunks.return().catch(() => {}); // what it waited for has failed, as it was to
        settle(new AbortError("the client closed the connection"));
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: HEADERS });
}

const eventBytes = (data: string): Uint8Array => new TextEncoder().encode(`data: ${data}\n\n`);

function end(controller: ReadableStreamDefaultController<Uint8Array>, error: unknown): void {
  try {
    controller.enqueue(eventBytes(JSON.stringify(httpError(error).body)));
    controller.close();
  } catch {
    // The client has gone: there is nobody left to be told.
  }
}
