/**
 * The scores of a chunk of keys, their maxima by blocks and their exponentials: first half of attention's inner loop.
 *
 * A block of 32 keys has 8 · quads neighbouring lanes, each with 4 / quads of its keys. Eight dimensions of the queries, or four, are
 * taken at once: from workgroup memory, or on software drivers, for which a read of that costs as much as eight
 * multiplications, by a read a lane and broadcasts in the subgroup.
 */
import { MASKED } from "./finish.ts";
import { kvNumbers, numberOf } from "./kv_types.ts";
import { each, type Tile } from "./tile.ts";

/** Dimensions that are taken at once. With eight of more numbers than these a GPU's lane would need more than 96 registers. */
const dimensionsAtOnce = ({ kvType, quads, subgroups }: Tile): number =>
  subgroups || (quads === 1 && kvNumbers[kvType].dims === 2) ? 8 : 4;

/** Fills `p` with exponentials and `block_max`; leaves a barrier to be made before `p` is read. */
export function scoresFragment(tile: Tile): string {
  const { kvType, quads, rows } = tile;
  const { dims, scaled } = kvNumbers[kvType];
  const keys = 4 / quads;
  const lanes = 8 * quads;
  const atOnce = dimensionsAtOnce(tile);
  const live = (i: number, q: number) =>
    rows ? `(vec4u(j${i}) >= lows${q}) & (vec4u(j${i}) < lengths${q})` : `vec4<bool>(j${i} >= begin && j${i} < end)`;
  return /* wgsl */ `
    let b = lane / ${lanes}u;
    let live_block = b >= first_block && b < end_block;
${each(keys, (i) => `    let j${i} = chunk + b * BLOCK + ${i * lanes}u + lane % ${lanes}u;`)}
${each(keys, (i) => each(quads, (q) => `    var s${i}_${q} = vec4f();`))}
    if (live_block) {
${each(keys, (i) => `      let at${i} = k_at(page_of(row, min(j${i}, end - 1u)), unit.kv_head, 0u, min(j${i}, end - 1u) % PAGE);`)}
      var d = 0u;
      for (; d + ${atOnce}u <= params.head_dim; d += ${atOnce}u) {
${dot(tile, atOnce)}
      }
      for (; d < params.head_dim; d += ${Math.max(2, dims)}u) {
${dot({ ...tile, subgroups: false }, Math.max(2, dims))}
      }
${each(keys, (i) => `      let scale${i} = params.scale${scaled ? ` * bitcast<f32>(kv[at${i} + params.head_dim / ${dims}u * PAGE])` : ""};`)}
${each(keys, (i) =>
  each(
    quads,
    (q) => /* wgsl */ `
      s${i}_${q} *= scale${i};
      if (params.softcap > 0.0) {
        let c = params.softcap * tanh(clamp(s${i}_${q} / params.softcap, vec4f(-15.0), vec4f(15.0)));
        s${i}_${q} = select(c, s${i}_${q}, broken(s${i}_${q})); // a clamp makes a number of it
      }`,
  ),
)}
${each(quads, (q) => {
  const masked = (i: number) => `select(vec4f(${MASKED}), s${i}_${q}, ${live(i, q)})`;
  const rest = Array.from({ length: keys - 1 }, (_, i) => masked(i + 1));
  return `      p[lane * QUADS + ${q}u] = ${rest.reduce((a, s) => `max(${a}, ${s})`, masked(0))};`;
})}
    }
    workgroupBarrier();
    if (lane < BLOCKS * QUADS && lane / QUADS >= first_block && lane / QUADS < end_block) {
      let at = lane / QUADS * ${lanes}u;
      var m = p[at * QUADS + lane % QUADS];
      for (var i = 1u; i < ${lanes}u; i++) { m = max(m, p[(at + i) * QUADS + lane % QUADS]); }
      block_max[lane] = m;
    }
    workgroupBarrier();
    if (live_block) {
${each(quads, (q) => `      let m${q} = block_max[b * QUADS + ${q}u];`)}
${each(keys, (i) =>
  each(
    quads,
    (q) =>
      `      p[(j${i} - chunk) * QUADS + ${q}u] = select(vec4f(), select(exp(s${i}_${q} - m${q}), s${i}_${q}, broken(s${i}_${q})), ${live(i, q)});`,
  ),
)}
    }`;
}

/** Adds the products of `count` dimensions from d on to the scores. */
function dot({ kvType, quads, subgroups }: Tile, count: number): string {
  const { dims } = kvNumbers[kvType];
  const keys = 4 / quads;
  const query = (j: number, q: number) =>
    subgroups ? `subgroupBroadcast(q${q}, ${j}u)` : `q4[(d + ${j}u) * QUADS + ${q}u]`;
  const words = count / dims;
  return `${subgroups ? each(quads, (q) => `        let q${q} = q4[(d + sub) * QUADS + ${q}u];`) : ""}
${each(keys, (i) => each(words, (w) => `        let k${i}_${w} = kv_numbers(kv[at${i} + (d / ${dims}u + ${w}u) * PAGE]);`))}
${each(count, (j) =>
  each(quads, (q) => {
    const key = (i: number) => numberOf(`k${i}_${Math.floor(j / dims)}`, dims, j % dims);
    return `        let x${j}_${q} = ${query(j, q)};\n${each(
      keys,
      (i) => `        s${i}_${q} = fma(x${j}_${q}, vec4f(${key(i)}), s${i}_${q});`,
    )}`;
  }),
)}`;
}
