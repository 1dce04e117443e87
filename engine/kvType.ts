/** The types that a model's keys and values can have. */
import { KV_TYPES, type KvType, kvNumbers } from "../kernels/attention/kv_types.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { InvalidRequestError } from "./errors.ts";

/** In the order of KV_TYPES. */
export const kvTypesOf = (caches: readonly CacheDeclaration[]): readonly KvType[] =>
  KV_TYPES.filter((kvType) => caches.every((cache) => obstacle(cache, kvType) === null));

/** Throws InvalidRequestError for a type that a layer cannot have. */
export function checkKvType(caches: readonly CacheDeclaration[], kvType: KvType): void {
  for (const [layer, cache] of caches.entries()) {
    const why = obstacle(cache, kvType);
    if (why === null) continue;
    const expected = kvTypesOf(caches).join(" or ");
    throw new InvalidRequestError(`--kv-type ${kvType}: layer ${layer} has ${why}, expected ${expected}`);
  }
}

/** What keeps a layer from a type; null: nothing does. */
function obstacle(cache: CacheDeclaration, kvType: KvType): string | null {
  if (cache.kind === "state") return null; // states are f32 whatever the type
  const { headDim, valueDim = headDim } = cache;
  const { dims, scaled } = kvNumbers[kvType];
  if (scaled && valueDim === 0) return "latents, which one scale does not fit";
  const odd = [headDim, valueDim].find((dim) => dim % dims !== 0);
  return odd === undefined ? null : `heads of ${odd}, no multiple of ${dims}`;
}
