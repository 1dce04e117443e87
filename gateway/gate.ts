/** How many requests are in the engine at once, and how they end when the server does. */
import { AbortError } from "../engine/errors.ts";
import { HttpError, RETRY_SOON } from "./httpError.ts";

/** A request that was let in. */
export interface Entry {
  /** Aborted when the client is gone, and when the server ends. */
  readonly signal: AbortSignal;
  /** Ends its work. */
  abort(): void;
  /** To be called once, when all of it is done. */
  leave(): void;
}

/** Counts requests in and out. */
export class Gate {
  readonly #limit: number;
  readonly #inside = new Set<AbortController>();
  #closing = false;
  #whenEmpty: (() => void)[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  get inside(): number {
    return this.#inside.size;
  }
  get closing(): boolean {
    return this.#closing;
  }

  /** Lets a request in until `client` is gone. Throws HttpError where there is no room. */
  enter(client: AbortSignal): Entry {
    if (this.#closing) throw busy("the server is shutting down");
    if (this.#inside.size >= this.#limit) throw busy(`${this.#limit} requests are being answered, the most at once`);
    const controller = new AbortController();
    const gone = () => controller.abort(new AbortError("the client closed the connection"));
    if (client.aborted) gone();
    client.addEventListener("abort", gone, { once: true });
    this.#inside.add(controller);
    return {
      signal: controller.signal,
      abort: gone,
      leave: () => {
        client.removeEventListener("abort", gone);
        this.#inside.delete(controller);
        if (this.#inside.size === 0) for (const tell of this.#whenEmpty.splice(0)) tell();
      },
    };
  }

  /** Lets nobody in any more; resolves when all have left. */
  close(): Promise<void> {
    this.#closing = true;
    if (this.#inside.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenEmpty.push(resolve));
  }

  /** Ends the work of all who are inside. */
  abortAll(): void {
    for (const controller of this.#inside) controller.abort(new AbortError("the server is shutting down"));
  }
}

function busy(message: string): HttpError {
  return new HttpError(503, `${message}; try again`, {
    type: "overloaded_error",
    code: "overloaded",
    headers: RETRY_SOON,
  });
}
