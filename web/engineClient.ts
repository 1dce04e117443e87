/** The page's end of the engine's worker. */
import { IngleError } from "../device/errors.ts";
import type { LoadProgress } from "../engine/loadModel.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import type { AboutModel, EngineNews, EngineOrder, Failure } from "./messages.ts";

interface Answering {
  readonly onPart: (part: Part) => void;
  readonly resolve: (end: { readonly aborted: boolean }) => void;
  readonly reject: (error: Error) => void;
}

/** An engine in a worker. Whoever loaded it closes it. */
export class EngineClient {
  readonly about: AboutModel;
  readonly #worker: Worker;
  readonly #answering = new Map<number, Answering>();
  #broken: Error | undefined;
  #lastId = 0;

  private constructor(worker: Worker, about: AboutModel) {
    this.#worker = worker;
    this.about = about;
    listen(worker, {
      onNews: (news) => this.#take(news),
      onBroken: (error) => {
        this.#broken = error;
        for (const { reject } of this.#answering.values()) reject(error);
        this.#answering.clear();
      },
    });
  }

  /** Starts the worker `script` and loads the model at an address in it. Throws what Engine.load throws, as IngleError. */
  static async load(
    script: string | URL,
    model: string,
    onProgress: (progress: LoadProgress) => void,
  ): Promise<EngineClient> {
    const worker = new Worker(script, { type: "module" });
    try {
      const about = await new Promise<AboutModel>((resolve, reject) => {
        const onNews = (news: EngineNews) => {
          if (news.type === "progress") onProgress(news.progress);
          else if (news.type === "loaded") resolve(news.about);
          else if (news.type === "failed") reject(errorOf(news.failure));
        };
        listen(worker, { onNews, onBroken: reject });
        worker.postMessage({ type: "load", model } satisfies EngineOrder);
      });
      return new EngineClient(worker, about);
    } catch (error) {
      worker.terminate();
      throw error;
    }
  }

  /** Runs a request to its end, or until its signal; `onPart` sees every part. Throws what Engine.generate throws, as IngleError. */
  async generate(request: GenerateRequest, onPart: (part: Part) => void): Promise<{ readonly aborted: boolean }> {
    if (this.#broken !== undefined) throw this.#broken;
    const { signal, ...plain } = request;
    const id = ++this.#lastId;
    const stop = () => this.#tell({ type: "stop", id });
    const end = new Promise<{ readonly aborted: boolean }>((resolve, reject) => {
      this.#answering.set(id, { onPart, resolve, reject });
    });
    this.#tell({ type: "generate", id, request: plain });
    if (signal?.aborted === true) stop();
    signal?.addEventListener("abort", stop, { once: true });
    try {
      return await end;
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#answering.delete(id);
    }
  }

  #take(news: EngineNews): void {
    if (news.type !== "part" && news.type !== "ended" && news.type !== "failed") return;
    const answering = news.id === undefined ? undefined : this.#answering.get(news.id);
    if (news.type === "part") answering?.onPart(news.part);
    else if (news.type === "ended") answering?.resolve({ aborted: news.aborted });
    else answering?.reject(errorOf(news.failure));
  }

  #tell(order: EngineOrder): void {
    this.#worker.postMessage(order);
  }

  /** Ends the worker, and with it its device. */
  close(): void {
    this.#worker.terminate();
  }
}

function errorOf({ code, message }: Failure): Error {
  return code === "" ? new Error(message) : new IngleError(code, message);
}

interface Listener {
  readonly onNews: (news: EngineNews) => void;
  readonly onBroken: (error: Error) => void;
}

function listen(worker: Worker, { onNews, onBroken }: Listener): void {
  worker.addEventListener("message", ({ data }: MessageEvent<EngineNews>) => onNews(data));
  worker.addEventListener("error", ({ message }) => {
    // A script that cannot be fetched tells no reason.
    const reason = message || "its script could not be loaded";
    onBroken(new IngleError("WORKER", `engine: its worker failed: ${reason}; reload the page`));
  });
}
