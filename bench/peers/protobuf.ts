/**
 * Protocol Buffers, written: the wire format of what ONNX files need, without a library.
 *
 * Source: "Protocol Buffers Encoding", wire types 0 (varint), 2 (length-delimited) and 5 (32 bits).
 */

/** A message as pieces that are joined at the end, so that large tensors are copied once. */
export class Message {
  readonly #pieces: Uint8Array[] = [];
  #length = 0;

  /** An integer from 0 to 2⁵³ − 1. */
  integer(field: number, value: number): this {
    return this.#add(varint(field * 8)).#add(varint(value));
  }

  float(field: number, value: number): this {
    return this.#add(varint(field * 8 + 5)).#add(new Uint8Array(Float32Array.of(value).buffer));
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  /** `value` is kept, not copied, until `finish`. */
  bytes(field: number, value: Uint8Array): this {
    return this.#add(varint(field * 8 + 2))
      .#add(varint(value.length))
      .#add(value);
  }

  message(field: number, inner: Message): this {
    this.#add(varint(field * 8 + 2)).#add(varint(inner.length));
    for (const piece of inner.pieces) this.#add(piece);
    return this;
  }

  get pieces(): readonly Uint8Array[] {
    return this.#pieces;
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes. */
  finish(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const piece of this.#pieces) {
      out.set(piece, at);
      at += piece.length;
    }
    return out;
  }

  #add(piece: Uint8Array): this {
    this.#pieces.push(piece);
    this.#length += piece.length;
    return this;
  }
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return Uint8Array.of(...bytes, rest);
}
