/** The buffers that live on one device: how many, and their bytes. Tests hold it to zero at the end. */
export class BufferLedger {
  #bytes = 0;
  readonly #live = new Set<GPUBuffer>();

  /** Bytes of all live buffers, as asked for: what a driver adds is not seen. */
  get bytes(): number {
    return this.#bytes;
  }

  get buffers(): number {
    return this.#live.size;
  }

  add(buffer: GPUBuffer): void {
    this.#live.add(buffer);
    this.#bytes += buffer.size;
  }

  /** False where the buffer was not live. */
  remove(buffer: GPUBuffer): boolean {
    if (!this.#live.delete(buffer)) return false;
    this.#bytes -= buffer.size;
    return true;
  }

  clear(): void {
    this.#live.clear();
    this.#bytes = 0;
  }
}
