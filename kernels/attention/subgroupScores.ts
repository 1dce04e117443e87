/**
 * The scores of a block of 32 keys by a subgroup, each of whose lanes has an equal part of them, behind each other; what follows of them for the block.
 *
 * On software drivers a load is some dozens of instructions for a number of all lanes, whatever its address, and a broadcast one to six. So a key
 * is loaded once for all queries, and of these a lane holds every fourth or eighth dimension. Nothing of it is in workgroup memory.
 */
import { KEY_BLOCK } from "../fragments/batch.ts";
import { MASKED } from "./finish.ts";
import { kvNumbers, numberOf } from "./kv_types.ts";
import { each, type Tile } from "./tile.ts";

/** Keys of a lane. */
export const keysOf = ({ subgroups }: Tile): number => KEY_BLOCK / subgroups;

/** Of a query that does not see a key: the exponential that says so, adds nothing to a sum, and times a number adds nothing to one. */
export const UNSEEN = "-0.0";

/** Declares `e<key>_<quad>`, exponentials of the lane's keys; and by quad `m`, the block's maximum, and `sum`, that of its exponentials in key order. */
export function subgroupScoresFragment(tile: Tile): string {
  const { kvType, quads, subgroups: lanes } = tile;
  const { dims, scaled } = kvNumbers[kvType];
  const keys = keysOf(tile);
  const all = (text: (i: number, q: number) => string) => each(keys, (i) => each(quads, (q) => text(i, q)));
  return /* wgsl */ `
    let j = block + sub * ${keys}u;
    let some_key = min(j, end - 1u);
    let own_page = page_of(row, some_key);
    let key_at = k_at(own_page, unit.kv_head, 0u, some_key & (PAGE - 1u) & ~${keys - 1}u) >> 2u;
${all((i, q) => `    var s${i}_${q} = vec4f();`)}
    var d = 0u;
    var word = 0u;
    loop {
${products(tile)}
      d += ${lanes}u;
      word += ${lanes / dims}u;
      continuing { break if d >= params.head_dim; }
    }
${scaled ? scales(tile, "key_scale", `key_at + params.head_dim / ${dims}u * (PAGE / 4u)`) : ""}
${each(keys, (i) => `    let scale${i} = params.scale${scaled ? ` * key_scale${i}` : ""};`)}
${capped(tile)}
${all((i, q) => `    let seen${i}_${q} = ${seen(tile, i, q)};`)}
${each(
  quads,
  (q) => `    let most${q} = ${most((i) => `select(vec4f(${MASKED}), c${i}_${q}, seen${i}_${q})`, keys)};
    let m${q} = ${most((l) => `subgroupBroadcast(most${q}, ${l}u)`, lanes)};`,
)}
${all((i, q) => `    var e${i}_${q} = select(vec4f(${UNSEEN}), select(exp(c${i}_${q} - m${q}), c${i}_${q}, broken(c${i}_${q})), seen${i}_${q});`)}
${each(quads, (q) => `    var sum${q} = vec4f();`)}
${each(lanes, (l) =>
  each(quads, (q) => {
    const before = l === 0 ? "vec4f()" : `subgroupBroadcast(sum${q}, ${l - 1}u)`;
    return `    sum${q} = ${[before, ...Array.from({ length: keys }, (_, i) => `e${i}_${q}`)].join(" + ")};`;
  }),
)}
${each(quads, (q) => `    sum${q} = subgroupBroadcast(sum${q}, ${lanes - 1}u);`)}
${
  scaled
    ? `${scales(tile, "value_scale", `key_at + (params.head_dim / ${dims}u + 1u) * (PAGE / 4u)`)}
${all((i, q) => `    e${i}_${q} = select(vec4f(${UNSEEN}), e${i}_${q} * value_scale${i}, seen${i}_${q});`)}`
    : ""
}`;
}

/** Which queries of a quad see the lane's i-th key. */
const seen = ({ rows }: Tile, i: number, q: number): string =>
  rows
    ? `(vec4u(j + ${i}u) >= lows${q}) & (vec4u(j + ${i}u) < lengths${q})`
    : `vec4<bool>(j + ${i}u >= begin && j + ${i}u < end)`;

/** The greatest of `count`. */
const most = (text: (index: number) => string, count: number): string =>
  Array.from({ length: count - 1 }, (_, i) => text(i + 1)).reduce((a, b) => `max(${a}, ${b})`, text(0));

/** Declares of each key a number that lies as the words of keys do, those of the first four at `at`. */
function scales(tile: Tile, name: string, at: string): string {
  const keys = keysOf(tile);
  return `    let ${name}_at = ${at};
${each(keys / 4, (four) => `    let ${name}_${four} = bitcast<vec4f>(kv[${name}_at + ${four}u]);`)}
${each(keys, (i) => `    let ${name}${i} = ${name}_${Math.floor(i / 4)}.${"xyzw"[i % 4]};`)}`;
}

/** Declares the scores as they are capped: in a loop, since written out that many of tanh would be half of the kernel, and behind no branch. */
function capped(tile: Tile): string {
  const { quads } = tile;
  const count = keysOf(tile) * quads;
  const name = (i: number) => `${Math.floor(i / quads)}_${i % quads}`;
  return /* wgsl */ `
    var caps = array<vec4f, ${count}>(${Array.from({ length: count }, (_, i) => `s${name(i)} * scale${Math.floor(i / quads)}`).join(", ")});
    for (var i = 0u; i < select(0u, ${count}u, params.softcap > 0.0); i++) {
      let c = params.softcap * tanh(clamp(caps[i] / params.softcap, vec4f(-15.0), vec4f(15.0)));
      caps[i] = select(c, caps[i], broken(caps[i])); // a clamp makes a number of it
    }
${each(count, (i) => `    let c${name(i)} = caps[${i}];`)}`;
}

/**
 * Declares the lane's dimensions of the queries, which end in zeros. They are read once for all blocks: an array of a
 * lane's own takes no branch and no check of bounds, as a storage buffer does.
 */
export function heldQueries({ headDim, quads, subgroups: lanes }: Tile): string {
  const steps = headDim / lanes;
  return `  var held: array<vec4f, ${steps * quads}>;
  var step = 0u;
  loop {
    let inside = step * ${lanes}u + sub < params.head_dim;
${each(quads, (q) => `    held[step * QUADS + ${q}u] = select(vec4f(), vec4f(${[..."xyzw"].map((c) => `qkv[query_at${q}.${c} + step * ${lanes}u]`).join(", ")}), inside);`)}
    step++;
    continuing { break if step * ${lanes}u >= params.head_dim; }
  }`;
}

/** Adds the products of a dimension of each lane to the scores; where there are fewer left, the queries' others are zeros, and the keys' last ones again. */
function products(tile: Tile): string {
  const { kvType, quads, subgroups: lanes } = tile;
  const { dims } = kvNumbers[kvType];
  const keys = keysOf(tile);
  const key = (i: number, j: number) => numberOf(`k${i}_${Math.floor(j / dims)}`, dims, j % dims);
  const wordAt = (w: number) => (w * dims < 2 ? `word + ${w}u` : `min(word + ${w}u, params.head_dim / ${dims}u - 1u)`);
  return `${each(quads, (q) => `      let own${q} = held[d / ${lanes}u * QUADS + ${q}u];`)}
${each(lanes / dims, (w) =>
  each(
    keys / 4,
    (four) => `      let word${four}_${w} = kv[key_at + (${wordAt(w)}) * (PAGE / 4u) + ${four}u];
${each(4, (i) => `      let k${4 * four + i}_${w} = kv_numbers(word${four}_${w}.${"xyzw"[i]});`)}`,
  ),
)}
${each(lanes, (j) =>
  each(
    quads,
    (q) => `      let x${j}_${q} = subgroupBroadcast(own${q}, ${j}u);
${each(keys, (i) => `      s${i}_${q} = fma(x${j}_${q}, vec4f(${key(i, j)}), s${i}_${q});`)}`,
  ),
)}`;
}
