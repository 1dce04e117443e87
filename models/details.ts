/** Small tensors that say how others are stored: read before anything is planned, so that what they say is checked before any upload. */
import type { Quantization } from "./formats/stored.ts";
import type { Checkpoint } from "./weights/checkpoint.ts";

/** Tensors read at once: HTTP takes a round trip each. */
const TOGETHER = 8;

/** The bytes of every tensor that the format wants to know beforehand, by name. */
export async function readDetails(
  { tensors }: Pick<Checkpoint, "tensors">,
  quantization: Quantization | null,
  signal?: AbortSignal,
): Promise<Map<string, Uint8Array>> {
  const details = new Map<string, Uint8Array>();
  if (quantization === null) return details;
  const wanted = [...tensors.values()].filter(({ name }) => quantization.isDetail(name));
  for (let at = 0; at < wanted.length; at += TOGETHER) {
    const batch = wanted.slice(at, at + TOGETHER);
    const bytes = await Promise.all(batch.map(({ source, begin, end }) => source.read(begin, end, signal)));
    batch.forEach(({ name }, i) => {
      const read = bytes[i];
      if (read !== undefined) details.set(name, read);
    });
  }
  return details;
}
