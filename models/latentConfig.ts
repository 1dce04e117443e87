/** What config.json says of latent attention (MLA), as DeepSeek's models have it. */
import { latentWidthFor } from "../kernels/fragments/batch.ts";
import {
  type Fields,
  field,
  numberField,
  objectField,
  optionalInteger,
  optionalNumber,
  refused,
} from "./configChecks.ts";
import { UnsupportedModelError } from "./errors.ts";

/** Latent attention. Names of the hub. */
export interface LatentConfig {
  /** Width of the queries' latent; null: queries are projected at once. */
  readonly q_lora_rank: number | null;
  /** Width of the latent of keys and values: even. */
  readonly kv_lora_rank: number;
  /** Dimensions of a query and a key that are not rotated, and those that are. */
  readonly qk_nope_head_dim: number;
  readonly qk_rope_head_dim: number;
  readonly v_head_dim: number;
  /** Whether neighbouring dimensions turn as pairs. */
  readonly interleaved: boolean;
}

// Above these a number is a mistake or an attack: 1536, 512 and 128 are published.
const RANK = { min: 1, max: 2 ** 16 };
const HEAD = { min: 1, max: 2 ** 12 };

/** Latent attention with the defaults that DeepSeek-V2's and V3's classes share. Throws UnsupportedModelError for latents that no kernel holds. */
export function readLatent(fields: Fields, qk_rope_head_dim: number, interleaved: boolean): LatentConfig {
  const q_lora_rank = Object.hasOwn(fields.values, "q_lora_rank") ? null : 1536;
  const kv_lora_rank = optionalInteger(fields, "kv_lora_rank", RANK) ?? 512;
  if (kv_lora_rank % 2 !== 0) throw refused(fields, "kv_lora_rank", "an even number");
  try {
    latentWidthFor(kv_lora_rank, qk_rope_head_dim);
  } catch (cause) {
    const message = `${fields.file}: kv_lora_rank is ${kv_lora_rank}, with qk_rope_head_dim ${kv_lora_rank + qk_rope_head_dim}`;
    throw new UnsupportedModelError(`${message}, supported: what the attention kernels hold, 512 and 576`, { cause });
  }
  return {
    q_lora_rank: optionalInteger(fields, "q_lora_rank", RANK) ?? q_lora_rank,
    kv_lora_rank,
    qk_nope_head_dim: optionalInteger(fields, "qk_nope_head_dim", HEAD) ?? 128,
    qk_rope_head_dim,
    v_head_dim: optionalInteger(fields, "v_head_dim", HEAD) ?? 128,
    interleaved,
  };
}

/** What multiplies q · k: 1 / √(length of both), and where YaRN has an `mscale_all_dim` its factor squared besides. */
export function latentScale(fields: Fields, { qk_nope_head_dim, qk_rope_head_dim }: LatentConfig): number {
  const scale = 1 / Math.sqrt(qk_nope_head_dim + qk_rope_head_dim);
  const rope = objectField(fields, "rope_parameters") ?? objectField(fields, "rope_scaling");
  if (rope === undefined) return scale;
  const all = optionalNumber(rope, "mscale_all_dim", { min: 0, max: 1e6 }) ?? 0;
  const type = field(rope, "rope_type") ?? field(rope, "type") ?? "default";
  if (all === 0 || type === "default") return scale;
  const factor = numberField(rope, "factor", { min: 1, max: 1e6 });
  const mscale = factor <= 1 ? 1 : 0.1 * all * Math.log(factor) + 1;
  return scale * mscale * mscale;
}
