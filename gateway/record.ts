/** What is known of a request while it is answered, and its line in the log. */
import { milliseconds } from "../engine/speedLine.ts";

/** One request. */
export class RequestRecord {
  readonly method: string;
  readonly path: string;
  readonly #begun = performance.now();
  /** Tokens of the prompt, those of them that were cached, and of the answer; 0 where nothing was generated. */
  promptTokens = 0;
  cachedTokens = 0;
  completionTokens = 0;
  firstTokenMs: number | undefined;
  /** Whether it goes on after its headers were sent. */
  streaming = false;

  constructor(method: string, path: string) {
    [this.method, this.path] = [method, path];
  }

  /** Milliseconds since it came. */
  get age(): number {
    return performance.now() - this.#begun;
  }

  /** "POST /v1/completions 200 · prompt 12 tok · generated 64 tok · first token 84 ms · 1702 ms" */
  line(status: number): string {
    const cached = this.cachedTokens > 0 ? ` (${this.cachedTokens} cached)` : "";
    return [
      `${this.method} ${this.path.slice(0, 200)} ${status}`,
      ...(this.promptTokens > 0 ? [`prompt ${this.promptTokens} tok${cached}`] : []),
      ...(this.completionTokens > 0 ? [`generated ${this.completionTokens} tok`] : []),
      ...(this.firstTokenMs === undefined ? [] : [`first token ${milliseconds(this.firstTokenMs)}`]),
      milliseconds(this.age),
    ].join(" · ");
  }
}
