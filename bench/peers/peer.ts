/** An engine that is measured against others: the same prompt, the same number of greedy tokens. */

/** What one answer took. */
export interface PeerAnswer {
  /** From the request to the first token. */
  readonly promptMs: number;
  /** From the first token to the last. */
  readonly decodeMs: number;
  /** The first one included. */
  readonly tokens: readonly number[];
}

/** A loaded engine. Whoever loaded it closes it. */
export interface Peer {
  /** "ingle, WebGPU f32" */
  readonly name: string;
  answer(prompt: readonly number[], tokens: number): Promise<PeerAnswer>;
  close(): Promise<void>;
}
