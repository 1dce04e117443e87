/**
 * p · V of a chunk by blocks, folded into the split: second half of attention's inner loop.
 *
 * A lane has every 64th part of a value, a word or half of one. Eight keys, or four, are taken at once, whose values are then loaded together; their
 * exponentials come from workgroup memory, or for latents on software drivers by a read a lane and broadcasts in the subgroup.
 */
import { MAX_LATENT } from "../fragments/batch.ts";
import { kvNumbers, numberOf } from "./kv_types.ts";
import { each, type Tile } from "./tile.ts";

const LANES = 64;

/** Dimensions of a part. */
const dimsAPart = ({ kvType }: Tile): number => kvNumbers[kvType].taken;

/** Keys that are taken at once. With eight of twice the queries a GPU's lane would need more than 96 registers. */
const keysAtOnce = ({ quads }: Tile): number => (quads === 1 ? 8 : 4);

const partsALane = (tile: Tile): number => Math.max(1, Math.min(tile.headDim, MAX_LATENT) / dimsAPart(tile) / LANES);

/** Parts of a value. */
const partsOf = (tile: Tile): string => `(params.value_dim / ${dimsAPart(tile)}u)`;

/** WGSL for each number of a part: its text and its dimension. */
type PartNumbers = (dim: number) => string;

/** Loads `keys` parts from the one at `at` on; the numbers of each. */
function load(tile: Tile, keys: number): { code: string; numbers: (key: number) => PartNumbers } {
  const { kvType, subgroups, latent } = tile;
  const { dims, taken } = kvNumbers[kvType];
  if (!subgroups) {
    const next = latent ? "" : " * params.value_words"; // from a key's word to the next one's
    return {
      code: each(keys, (i) => `            let v${i} = kv_taken(kv[at + ${i}u${next}], w);`),
      numbers: (i) => (d) => numberOf(`v${i}`, taken, d),
    };
  }
  // Latents lie as keys do: four words are four keys'.
  const four = keys === 1 ? "" : each(keys / 4, (f) => `            let four${f} = kv[at / 4u + ${f}u];`);
  const word = (i: number) => (keys === 1 ? "kv[at / 4u][at % 4u]" : `four${Math.floor(i / 4)}.${"xyzw"[i % 4]}`);
  return {
    code: `${four}\n${each(keys, (i) => `            let v${i} = kv_numbers(${word(i)});`)}`,
    numbers: (i) => (d) => numberOf(`v${i}`, dims, d),
  };
}

/** Multiplies and adds `keys` keys at once, each sum in the order of the keys. */
function add(tile: Tile, keys: number): string {
  const { quads, subgroups } = tile;
  const { code, numbers } = load(tile, keys);
  const own = (i: number, q: number) =>
    subgroups ? `subgroupBroadcast(own, ${i}u)` : `p[(j - chunk + ${i}u) * QUADS + ${q}u]`;
  return `${subgroups ? "            let own = p[j - chunk + sub];" : ""}
${code}
${each(keys, (i) => each(quads, (q) => `            let x${i}_${q} = ${own(i, q)};`))}
${each(dimsAPart(tile), (d) =>
  each(quads, (q) =>
    each(keys, (i) => `            o${d}_${q} = fma(x${i}_${q}, vec4f(${numbers(i)(d)}), o${d}_${q});`),
  ),
)}`;
}

/** The parts of it. */
export const valuesFragment = {
  /** Declares the accumulators of the split, by part of the lane, dimension and quad. */
  declare: (tile: Tile): string =>
    each(partsALane(tile), (r) =>
      each(dimsAPart(tile), (d) => each(tile.quads, (q) => `  var part${r}_${d}_${q} = vec4f();`)),
    ),

  /** Where values have scales: multiplies the exponentials, which have been added up, by those of their keys' values. */
  weigh: ({ kvType, quads }: Tile): string =>
    !kvNumbers[kvType].scaled
      ? ""
      : /* wgsl */ `
    workgroupBarrier();
    for (var j = max(chunk, begin) + lane; j < min(chunk + CHUNK, end); j += WG) {
      let scale = bitcast<f32>(kv[v_scale_at(page_of(row, j), unit.kv_head, j % PAGE)]);
${each(quads, (q) => `      p[(j - chunk) * QUADS + ${q}u] *= scale;`)}
    }
    workgroupBarrier();`,

  /** Folds the chunk's blocks into them. */
  fold(tile: Tile): string {
    const { kvType, quads, subgroups, rows } = tile;
    const { dims, taken } = kvNumbers[kvType];
    const parts = partsOf(tile);
    const keys = keysAtOnce(tile);
    const word = dims === taken ? "w" : `w / ${dims / taken}u`;
    const accumulators = (text: (d: number, q: number) => string) =>
      each(dimsAPart(tile), (d) => each(quads, (q) => text(d, q)));
    const one = load(tile, 1);
    // With broadcasts, a subgroup that has a part of a value works as a whole.
    return each(
      partsALane(tile),
      (r) => /* wgsl */ `
    if (${subgroups ? `(lane + ${r * LANES}u) / 8u * 8u` : `lane + ${r * LANES}u`} < ${parts}) {
      let w = min(lane + ${r * LANES}u, ${parts} - 1u);
      for (var b = first_block; b < end_block; b++) {
        let to = min(chunk + (b + 1u) * BLOCK, end);
        var j = max(chunk + b * BLOCK, begin);
${accumulators((d, q) => `        var o${d}_${q} = vec4f();`)}
${rows ? whole(tile) : ""}
        while (j < to) {
          let at = v_at(page_of(row, j), unit.kv_head, ${word}, j % PAGE);
          if (${rows ? "whole && " : ""}j % ${keys}u == 0u && j + ${keys}u <= to) {
${add(tile, keys)}
            j += ${keys}u;
            continue;
          }
${one.code}
${accumulators((d, q) => {
  const sum = `fma(p[(j - chunk) * QUADS + ${q}u], vec4f(${one.numbers(0)(d)}), o${d}_${q})`;
  const live = `(vec4u(j) >= lows${q}) & (vec4u(j) < lengths${q})`;
  return `          o${d}_${q} = ${rows ? `select(o${d}_${q}, ${sum}, ${live})` : sum};`;
})}
          j++;
        }
${each(quads, (q) => {
  const folded = (d: number) => `fma(part${r}_${d}_${q}, keep${q}, o${d}_${q} * take${q})`;
  const seen = `(max(lows${q}, vec4u(chunk + b * BLOCK)) < min(lengths${q}, vec4u(chunk + (b + 1u) * BLOCK)))`;
  return `        let keep${q} = keeps[b * QUADS + ${q}u];
        let take${q} = takes[b * QUADS + ${q}u];
${each(dimsAPart(tile), (d) => `        part${r}_${d}_${q} = ${rows ? `select(part${r}_${d}_${q}, ${folded(d)}, ${seen})` : folded(d)};`)}`;
})}
      }
    }`,
    );
  },

  /** Leaves the accumulators in `q4`, which is free by then. */
  leave(tile: Tile): string {
    const taken = dimsAPart(tile);
    return each(
      partsALane(tile),
      (r) => /* wgsl */ `
  if (lane + ${r * LANES}u < ${partsOf(tile)}) {
${each(taken, (d) => each(tile.quads, (q) => `    q4[((lane + ${r * LANES}u) * ${taken}u + ${d}u) * QUADS + ${q}u] = part${r}_${d}_${q};`))}
  }`,
    );
  },
};

/** Whether all queries see all of the block's keys. */
const whole = ({ quads }: Tile): string => /* wgsl */ `
        var seen = vec4<bool>(true);
${each(quads, (q) => `        seen &= (lengths${q} == vec4u()) | ((lows${q} <= vec4u(chunk + b * BLOCK)) & (lengths${q} >= vec4u(chunk + (b + 1u) * BLOCK)));`)}
        let whole = all(seen);`;
