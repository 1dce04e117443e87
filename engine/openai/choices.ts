/** The choices of a request as sources of events: run side by side, taken as fast as the reader takes them, ended when it leaves. */
import type { GenerateRequest } from "../types.ts";
import { type ChoiceEvent, type Events, eventOf, type ScoredToken, scoredTokens } from "./events.ts";
import type { Host } from "./host.ts";
import { Leave } from "./leave.ts";

/** The answers to one prompt, until `leave`: choices numbered from `first` on. */
export async function* answersOf(host: Host, request: GenerateRequest, first: number, leave: Leave): Events {
  const { signal, end } = leave.begin();
  try {
    for await (const part of host.generate({ ...request, signal })) yield eventOf(part, first + part.choice);
  } finally {
    end();
  }
}

/** The tokens of a request's prompt with their log-probabilities. */
export async function scorePrompt(
  host: Host,
  { tokens, priority }: { tokens: readonly number[]; priority?: number },
  top: number,
  leave: Leave,
): Promise<readonly ScoredToken[]> {
  const { signal, end } = leave.begin();
  try {
    return scoredTokens(await host.score({ tokens, top, signal, ...(priority === undefined ? {} : { priority }) }));
  } finally {
    end();
  }
}

/** What a source gave, or how it failed. */
type Arrived =
  | { readonly source: Events; readonly result: IteratorResult<ChoiceEvent, void> }
  | { readonly error: unknown };

/**
 * Events of several sources as they come. Each is asked for one at a time, the next when the last was taken: who takes them slowly
 * is given them slowly. Where one fails, or the caller leaves, the others are left too.
 */
export async function* merged(sources: readonly Events[]): Events {
  const arrived: Arrived[] = [];
  let wake = () => {};
  const take = (news: Arrived) => {
    arrived.push(news);
    wake();
  };
  const ask = (source: Events) =>
    void source.next().then(
      (result) => take({ source, result }),
      (error: unknown) => take({ error }),
    );
  try {
    sources.forEach(ask);
    let open = sources.length;
    while (open > 0) {
      const news = arrived.shift();
      if (news === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      } else if ("error" in news) throw news.error;
      else if (news.result.done === true) open--;
      else {
        yield news.result.value;
        ask(news.source);
      }
    }
  } finally {
    // One that still waits for its next event ends with it; that is not waited for.
    for (const source of sources) source.return().catch(() => {});
  }
}

/**
 * Runs `work`, and leaves it once the caller does, or `outer` says so: what it asked of the engine ends then. The link to `outer`,
 * which may live long, is undone at the end.
 */
export async function* untilLeft(outer: AbortSignal | undefined, work: (leave: Leave) => Events): Events {
  const leave = new Leave();
  const abort = () => leave.abort(outer?.reason);
  if (outer?.aborted === true) abort();
  outer?.addEventListener("abort", abort, { once: true });
  try {
    yield* work(leave);
  } finally {
    outer?.removeEventListener("abort", abort);
    leave.abort();
  }
}
