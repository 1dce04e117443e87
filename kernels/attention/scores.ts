/**
 * The scores of a chunk of keys, their maxima by blocks and their exponentials: first half of attention's inner loop.
 *
 * A block of 32 keys has 8 · quads neighbouring lanes, each with 4 / quads of its keys. Eight dimensions of the queries, or four, are
 * taken at once: from workgroup memory, or for latents on software drivers, for which a read of that costs as much as eight
 * multiplications, by a read a lane and broadcasts in the subgroup. There a block has one subgroup, whose lanes have four keys
 * behind each other: a page holds their words side by side, and one load of 128 bits brings them for little more than one of 32.
 */
import { MASKED } from "./finish.ts";
import { kvNumbers, numberOf } from "./kv_types.ts";
import { each, type Tile } from "./tile.ts";

/** Keys of a lane, and lanes of a block. */
const keysALane = ({ quads }: Tile): number => 4 / quads;
const lanesABlock = ({ quads }: Tile): number => 8 * quads;

/** Dimensions that are taken at once. With eight of more numbers than these a GPU's lane would need more than 96 registers. */
const dimensionsAtOnce = ({ kvType, quads, subgroups }: Tile): number =>
  quads === 1 && (subgroups > 0 || kvNumbers[kvType].dims === 2) ? 8 : 4;

/** Fills `p` with exponentials and `block_max`; leaves a barrier to be made before `p` is read. */
export function scoresFragment(tile: Tile): string {
  const { kvType, quads, subgroups, rows } = tile;
  const { dims, scaled } = kvNumbers[kvType];
  const keys = keysALane(tile);
  const lanes = lanesABlock(tile);
  const atOnce = dimensionsAtOnce(tile);
  const key = (i: number) => (subgroups ? `lane % 8u * 4u + ${i}u` : `${i * lanes}u + lane % ${lanes}u`);
  const live = (i: number, q: number) =>
    rows ? `(vec4u(j${i}) >= lows${q}) & (vec4u(j${i}) < lengths${q})` : `vec4<bool>(j${i} >= begin && j${i} < end)`;
  return /* wgsl */ `
    let b = lane / ${lanes}u;
    let live_block = b >= first_block && b < end_block;
${each(keys, (i) => `    let j${i} = chunk + b * BLOCK + ${key(i)};`)}
${each(keys, (i) => each(quads, (q) => `    var s${i}_${q} = vec4f();`))}
    if (live_block) {
${subgroups ? keysAt("", "j0", "/ 4u") : each(keys, (i) => keysAt(`${i}`, `j${i}`))}
      var d = 0u;
      for (; d + ${atOnce}u <= params.head_dim; d += ${atOnce}u) {
${dot(tile, atOnce, subgroups > 0)}
      }
      for (; d < params.head_dim; d += ${Math.max(2, dims)}u) {
${dot(tile, Math.max(2, dims), false)}
      }
${scaled ? words(tile, "scale_bits", 1, `params.head_dim / ${dims}u`) : ""}
${each(keys, (i) => `      let scale${i} = params.scale${scaled ? ` * bitcast<f32>(scale_bits${i}_0)` : ""};`)}
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

/** Declares where key j of the sequence lies. */
const keysAt = (i: string, j: string, unit = ""): string =>
  `      let at${i} = k_at(page_of(row, min(${j}, end - 1u)), unit.kv_head, 0u, min(${j}, end - 1u) % PAGE) ${unit};`;

/** Declares `count` words of each of the lane's keys from word `first` on: `name` with the key's number and the word's. */
function words(tile: Tile, name: string, count: number, first: string): string {
  if (!tile.subgroups)
    return each(keysALane(tile), (i) =>
      each(count, (w) => `        let ${name}${i}_${w} = kv[at${i} + (${first} + ${w}u) * PAGE];`),
    );
  return each(
    count,
    (w) => `        let ${name}_${w} = kv[at + (${first} + ${w}u) * (PAGE / 4u)];
${each(keysALane(tile), (i) => `        let ${name}${i}_${w} = ${name}_${w}.${"xyzw"[i]};`)}`,
  );
}

/** Adds the products of `count` dimensions from d on to the scores. */
function dot(tile: Tile, count: number, broadcast: boolean): string {
  const { kvType, quads } = tile;
  const { dims } = kvNumbers[kvType];
  const keys = keysALane(tile);
  const query = (j: number, q: number) =>
    broadcast ? `subgroupBroadcast(q, ${j}u)` : `q4[(d + ${j}u) * QUADS + ${q}u]`;
  return `${broadcast ? "        let q = q4[d + sub];" : ""}
${words(tile, "word", count / dims, `d / ${dims}u`)}
${each(keys, (i) => each(count / dims, (w) => `        let k${i}_${w} = kv_numbers(word${i}_${w});`))}
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
