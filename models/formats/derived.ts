/** Tensors that are computed from those of a checkpoint while they are read: what no kernel should have to know. */
import type { CheckpointTensor } from "../weights/checkpoint.ts";

/** A tensor of f32s that `compute` makes of elements first … end-1; `from` is the tensor that counts as read. */
export function derivedF32(
  from: CheckpointTensor,
  count: number,
  compute: (first: number, end: number, signal?: AbortSignal) => Promise<Float32Array<ArrayBuffer>>,
): CheckpointTensor {
  const { name, source } = from;
  return {
    name,
    dtype: "F32",
    shape: [count],
    begin: 0,
    end: 4 * count,
    source: {
      name: source.name,
      size: 4 * count,
      read: async (begin, end, signal) => {
        const [first, last] = [Math.floor(begin / 4), Math.ceil(end / 4)];
        const values = await compute(first, last, signal);
        return new Uint8Array(values.buffer, values.byteOffset + begin - 4 * first, end - begin);
      },
      close: async () => {},
    },
  };
}

/** The f32s first … end-1 of a tensor of them. */
export async function readF32(
  { source, begin }: CheckpointTensor,
  first: number,
  end: number,
  signal?: AbortSignal,
): Promise<Float32Array<ArrayBuffer>> {
  const bytes = await source.read(begin + 4 * first, begin + 4 * end, signal);
  return f32sOf(bytes);
}

/** Bytes as f32s, wherever they lie. */
export const f32sOf = (bytes: Uint8Array): Float32Array<ArrayBuffer> => new Float32Array(bytes.slice().buffer);

/** A tensor of one f32. */
export function constantF32(from: CheckpointTensor, value: number): CheckpointTensor {
  return derivedF32(from, 1, async () => new Float32Array([value]));
}
