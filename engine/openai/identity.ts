/** What an answer says of itself: the same in all chunks of a stream. */

/** A name of its own, the second it was begun in, and the model's name. */
export interface Identity {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

/** A new one; `kind` begins its id. */
export function identity(kind: string, model: string): Identity {
  return { id: `${kind}-${crypto.randomUUID()}`, created: Math.floor(Date.now() / 1000), model };
}
