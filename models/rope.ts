/** Rotary position embeddings: frequencies of every rope type, and the cosines and sines of a position. */

interface RopeBase {
  /** `rope_theta`, the base wavelength. */
  readonly theta: number;
  /** Components of a head that are rotated: head_dim × partial_rotary_factor, even. */
  readonly rotary_dim: number;
}

/** Plain rope. */
export interface DefaultRope extends RopeBase {
  readonly type: "default";
}

/** Positions divided by `factor`. */
export interface LinearRope extends RopeBase {
  readonly type: "linear";
  readonly factor: number;
}

/** A base that grows with the length of the pass, once that exceeds `max_position_embeddings`. */
export interface DynamicRope extends RopeBase {
  readonly type: "dynamic";
  readonly factor: number;
  readonly max_position_embeddings: number;
}

/** Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between. */
export interface Llama3Rope extends RopeBase {
  readonly type: "llama3";
  readonly factor: number;
  readonly low_freq_factor: number;
  readonly high_freq_factor: number;
  readonly original_max_position_embeddings: number;
}

/** YaRN: as llama3, with the ramp over dimensions, and an attention factor. */
export interface YarnRope extends RopeBase {
  readonly type: "yarn";
  readonly factor: number;
  /** Multiplies cosines and sines; worked out from `factor`, `mscale` and `mscale_all_dim` where the file has none. */
  readonly attention_factor: number;
  readonly beta_fast: number;
  readonly beta_slow: number;
  readonly truncate: boolean;
  readonly original_max_position_embeddings: number;
}

/** LongRoPE: a divisor for every frequency, one set up to the original length and one beyond. */
export interface LongRope extends RopeBase {
  readonly type: "longrope";
  readonly attention_factor: number;
  /** (rotary_dim / 2) */
  readonly short_factor: readonly number[];
  /** (rotary_dim / 2) */
  readonly long_factor: readonly number[];
  readonly original_max_position_embeddings: number;
}

/** What `rope_parameters` (or `rope_theta` and `rope_scaling`) says, with every default filled in. */
export type RopeConfig = DefaultRope | LinearRope | DynamicRope | Llama3Rope | YarnRope | LongRope;

/** The frequencies of one pass. */
export interface RopeFrequencies {
  /** (rotary_dim / 2): radians a position, each a float32 value. */
  readonly inverseFrequencies: Float64Array;
  /** Multiplies cosines and sines. */
  readonly attentionScaling: number;
}

const f32 = Math.fround;

/**
 * The frequencies that transformers 5 uses for a pass of `length` tokens, cached ones included.
 *
 *   default  ω_i = θ^(−2i/d)                          linear  ω_i / factor
 *   dynamic  θ' = θ · (factor · L / max − factor + 1)^(d/(d−2)), L = max(length, max)
 *   llama3   ω_i / factor where 2π/ω_i is long, ω_i where it is short, a blend between
 *   yarn     a blend of ω_i / factor and ω_i by a ramp over i        longrope  ω_i / factor_i
 *
 * `length` matters to dynamic and longrope only (`lengthDependent`).
 * Sources: Su et al. 2021, "RoFormer", §3.2; Peng et al. 2023, "YaRN", §3; Ding et al. 2024, "LongRoPE";
 * transformers 5.24, modeling_rope_utils.py.
 *
 * How: in float64, rounded to float32 after each operation that transformers does in float32. That is what models are trained
 * and measured with, and it is not the exact formula: an ω that is off by half a unit in the last place turns a head by
 * position · ω · 2⁻²⁵. Largest distance to transformers' cosines and sines, for θ 1e4, 1e5, 5e5 and d 64, 80, 128
 * (test/oracles/rope.py --measure):
 *
 *   positions below                                512     8,192   131,072
 *   exact ω, exact product                         3e-5    6e-4    9e-3
 *   exact ω rounded once, exact product            4e-5    7e-4    1e-2
 *   ω rounded step by step, exact product          2e-5    2e-4    4e-3
 *   ω and product rounded as here                  4e-8    2e-7    4e-6
 *
 * The last row is the rounding of the results, but for one ω of 408 where the two `pow` differ by a unit.
 */
export function ropeFrequencies(rope: RopeConfig, length: number): RopeFrequencies {
  switch (rope.type) {
    case "default":
      return { inverseFrequencies: plain(rope.theta, rope.rotary_dim), attentionScaling: 1 };
    case "linear": {
      const factor = f32(rope.factor);
      return {
        inverseFrequencies: plain(rope.theta, rope.rotary_dim).map((w) => f32(w / factor)),
        attentionScaling: 1,
      };
    }
    case "dynamic":
      return { inverseFrequencies: plain(dynamicTheta(rope, length), rope.rotary_dim), attentionScaling: 1 };
    case "llama3":
      return { inverseFrequencies: llama3(rope), attentionScaling: 1 };
    case "yarn":
      return { inverseFrequencies: yarn(rope), attentionScaling: rope.attention_factor };
    case "longrope": {
      const factors = isLong(rope, length) ? rope.long_factor : rope.short_factor;
      const powers = wavelengths(rope.theta, rope.rotary_dim);
      const inverseFrequencies = powers.map((power, i) => f32(1 / f32(f32(factors[i] ?? NaN) * power)));
      return { inverseFrequencies, attentionScaling: rope.attention_factor };
    }
    default:
      return rope satisfies never;
  }
}

/**
 * Cosines and sines of a position in a pass of `length` tokens, the attention scaling multiplied in.
 *
 * (rotary_dim): [cos_0 … cos_{d/2−1}, sin_0 … sin_{d/2−1}]; pair i of a head is turned by the angle position · ω_i.
 */
export function ropeRow(rope: RopeConfig, position: number, length: number): Float32Array {
  return ropeRowAt(ropeFrequencies(rope, length), position);
}

/** `ropeRow` for frequencies that are at hand: what fills a table. The angle is rounded to float32 as in transformers; see `ropeFrequencies`. */
export function ropeRowAt({ inverseFrequencies, attentionScaling }: RopeFrequencies, position: number): Float32Array {
  const half = inverseFrequencies.length;
  const row = new Float32Array(2 * half);
  const scaling = f32(attentionScaling);
  for (const [i, frequency] of inverseFrequencies.entries()) {
    const angle = f32(f32(position) * frequency);
    row[i] = f32(Math.cos(angle)) * scaling;
    row[half + i] = f32(Math.sin(angle)) * scaling;
  }
  return row;
}

/** Whether frequencies depend on the length of the pass: keys that were cached under one length are then wrong under another. */
export function lengthDependent(rope: RopeConfig): boolean {
  return rope.type === "dynamic" || rope.type === "longrope";
}

/** A key for `rope` at `length`: two lengths with equal keys have the same frequencies, so a table and cached keys serve both. */
export function ropeVariant(rope: RopeConfig, length: number): number {
  if (rope.type === "dynamic") return Math.max(length, rope.max_position_embeddings);
  if (rope.type === "longrope") return isLong(rope, length) ? 1 : 0;
  return 0;
}

/** `ropeVariant` of several ropes together. */
export function ropesVariant(ropes: readonly RopeConfig[], length: number): number {
  // A variant is 0, 1 or a length, in practice below 2^26: two of dynamic scaling, or many others, stay exact.
  return ropes.reduce((key, rope) => key * (rope.type === "dynamic" ? 2 ** 26 : 2) + ropeVariant(rope, length), 0);
}

function isLong(rope: LongRope, length: number): boolean {
  return length > rope.original_max_position_embeddings;
}

/** θ^(2i/d), (rotary_dim / 2): wavelengths over 2π. */
function wavelengths(theta: number, rotary_dim: number): Float64Array {
  return Float64Array.from({ length: rotary_dim / 2 }, (_, i) => f32(f32(theta) ** f32((2 * i) / rotary_dim)));
}

function plain(theta: number, rotary_dim: number): Float64Array {
  return wavelengths(theta, rotary_dim).map((power) => f32(1 / power));
}

function dynamicTheta(rope: DynamicRope, length: number): number {
  const { theta, rotary_dim, factor, max_position_embeddings } = rope;
  if (length <= max_position_embeddings) return theta;
  const growth = f32(f32(f32(f32(factor) * length) / max_position_embeddings) - (factor - 1));
  return f32(theta * f32(growth ** (rotary_dim / (rotary_dim - 2))));
}

function llama3(rope: Llama3Rope): Float64Array {
  const { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings: original } = rope;
  return plain(rope.theta, rope.rotary_dim).map((frequency) => {
    const wavelength = f32(f32(1 / frequency) * f32(2 * Math.PI));
    if (wavelength < f32(original / high_freq_factor)) return frequency;
    if (wavelength > f32(original / low_freq_factor)) return f32(frequency / f32(factor));
    const turns = f32(f32(1 / wavelength) * original);
    const smooth = f32(f32(turns - f32(low_freq_factor)) / f32(high_freq_factor - low_freq_factor));
    const slowed = f32(f32(f32(1 - smooth) * frequency) / f32(factor));
    return f32(slowed + f32(smooth * frequency));
  });
}

function yarn(rope: YarnRope): Float64Array {
  const {
    theta,
    rotary_dim,
    factor,
    beta_fast,
    beta_slow,
    truncate,
    original_max_position_embeddings: original,
  } = rope;
  /** The dimension whose wavelength makes `rotations` turns within the original length. */
  const dimension = (rotations: number) =>
    (rotary_dim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const [first, last] = [dimension(beta_fast), dimension(beta_slow)];
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, rotary_dim - 1);
  const width = low === high ? 0.001 : high - low; // as transformers: no division by 0
  return wavelengths(theta, rotary_dim).map((power, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - f32(low)) / f32(width)), 0), 1);
    const kept = f32(1 - ramp);
    const slowed = f32(f32(1 / f32(f32(factor) * power)) * f32(1 - kept));
    return f32(slowed + f32(f32(1 / power) * kept));
  });
}
