/** Writes safetensors files: of models that are made and not read. */
import type { TensorInfo } from "./tensorInfo.ts";

/** A tensor and its bytes. */
export interface WrittenTensor extends Pick<TensorInfo, "dtype" | "shape"> {
  readonly bytes: Uint8Array;
}

/** The bytes of a file with these tensors, in their order; the header is padded with spaces to 8 bytes. */
export function safetensorsFile(tensors: ReadonlyMap<string, WrittenTensor>): Uint8Array<ArrayBuffer> {
  let size = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [size, size + bytes.length] };
    size += bytes.length;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(8 + padded + size).fill(0x20, 8 + json.length, 8 + padded);
  new DataView(file.buffer).setBigUint64(0, BigInt(padded), true);
  file.set(json, 8);
  let at = 8 + padded;
  for (const { bytes } of tensors.values()) {
    file.set(bytes, at);
    at += bytes.length;
  }
  return file;
}
