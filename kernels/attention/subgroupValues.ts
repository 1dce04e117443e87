/**
 * p · V of a block of 32 keys by a subgroup, each of whose lanes has an equal part of the dimensions: half of the keys at a time whose
 * exponentials a lane has.
 *
 * No branch saves anything there, for both of its sides are run, masked. So there is one way for all keys: a query that does not see one multiplies by
 * UNSEEN, and a value that is not finite is taken for 0 and instead of the exponentials of those that see it.
 */
import { kvNumbers, numberOf } from "./kv_types.ts";
import { keysOf, UNSEEN } from "./subgroupScores.ts";
import { each, type Tile } from "./tile.ts";

/** Keys that are taken at once. */
const atOnce = (tile: Tile): number => keysOf(tile) / 2;

/** Dimensions of a lane. */
export const dimsOf = ({ headDim, subgroups }: Tile): number => headDim / subgroups;

const accumulators = (tile: Tile, text: (d: number, q: number) => string) =>
  each(dimsOf(tile), (d) => each(tile.quads, (q) => text(d, q)));

/** The parts of it. */
export const subgroupValuesFragment = {
  /** Declares the accumulators of the split, by dimension and quad. */
  declare: (tile: Tile): string => `${
    guards(tile)
      ? each(
          dimsOf(tile) / 4,
          (v) =>
            `  let inside_value${v} = vec4u(sub * ${dimsOf(tile)}u) + vec4u(${[0, 1, 2, 3].map((c) => 4 * v + c).join(", ")}) < vec4u(params.value_dim);`,
        )
      : ""
  }
  var parts: array<vec4f, ${dimsOf(tile) * tile.quads}>;`,

  /** Folds the block into them: by quad as `keep` and `take` say. */
  fold(tile: Tile): string {
    const { quads, rows } = tile;
    const keys = atOnce(tile);
    return /* wgsl */ `
${accumulators(tile, (d, q) => `    var o${d}_${q} = vec4f();`)}
    var first = block;
    loop {
      let from_lane = (first - block) >> ${Math.log2(2 * keys)}u;
      let odd = (first & ${keys}u) != 0u;
      let at = v_at(subgroupShuffle(own_page, from_lane), unit.kv_head, value_word, first & (PAGE - 1u)) >> 2u;
${each(keys, (i) => `${load(tile, i)}\n${add(tile, i)}`)}
      first += ${keys}u;
      continuing { break if first == block + BLOCK; }
    }
${each(quads, (q) => {
  const part = (d: number) => `parts[${d * quads + q}]`;
  const folded = (d: number) => `fma(${part(d)}, keep${q}, o${d}_${q} * take${q})`;
  return `${rows ? `    let some${q} = max(lows${q}, vec4u(block)) < min(lengths${q}, vec4u(block + BLOCK));` : ""}
${each(dimsOf(tile), (d) => `    ${part(d)} = ${rows ? `select(${part(d)}, ${folded(d)}, some${q})` : folded(d)};`)}`;
})}`;
  },
};

/** Whether a number may not be finite that only some of the queries see: codes always are. */
const guards = ({ kvType, rows }: Tile): boolean => rows && !kvNumbers[kvType].scaled;

/** The c-th of a lane's words in a vector of four: where it has but two, these are the first of them or the last. */
const wordOf = (four: string, words: number, c: number): string =>
  words < 4 ? `select(${four}.${"xy"[c]}, ${four}.${"zw"[c]}, (value_word & 2u) != 0u)` : `${four}.${"xyzw"[c]}`;

/** Declares the i-th key's numbers in fours, and where they are guarded the sum of those that are not finite. */
function load(tile: Tile, i: number): string {
  const { dims } = kvNumbers[tile.kvType];
  const words = dimsOf(tile) / dims;
  const number = (d: number) => numberOf(`n${i}_${Math.floor(d / dims)}`, dims, d % dims);
  const fours = dimsOf(tile) / 4;
  const word = (l: number) => `kv[at + ${i}u * (params.value_words >> 2u) + ${l}u]`;
  const guarded = guards(tile);
  return `${tile.rows ? "" : `      let live${i} = first + ${i}u >= begin && first + ${i}u < end;`}
${each(
  Math.ceil(words / 4),
  (l) => `      let four${i}_${l} = ${tile.rows ? word(l) : `select(vec4u(), ${word(l)}, live${i})`};
${each(Math.min(words, 4), (c) => `      let n${i}_${4 * l + c} = kv_numbers(${wordOf(`four${i}_${l}`, words, c)});`)}`,
)}
${guarded ? `      var bad${i} = vec4f();` : ""}
${each(fours, (v) => {
  const four = `vec4f(${[0, 1, 2, 3].map((c) => number(4 * v + c)).join(", ")})`;
  if (!guarded) return `      let v${i}_${v} = ${four};`;
  return `      let raw${i}_${v} = ${four};
      let broken${i}_${v} = broken(raw${i}_${v});
      let v${i}_${v} = select(raw${i}_${v}, vec4f(), broken${i}_${v});
      bad${i} += select(vec4f(), raw${i}_${v}, broken${i}_${v} & inside_value${v});`;
})}
${
  guarded
    ? `      let sum_bad${i} = vec4f((bad${i}.x + bad${i}.y) + (bad${i}.z + bad${i}.w));
      let is_bad${i} = broken(sum_bad${i});`
    : ""
}`;
}

/** Multiplies and adds it, to each sum in the order of the keys. */
function add(tile: Tile, i: number): string {
  const given = (q: number) => `subgroupShuffle(select(e${i}_${q}, e${i + atOnce(tile)}_${q}, odd), from_lane)`;
  return `${each(tile.quads, (q) => {
    if (!guards(tile)) return `      let x${i}_${q} = ${given(q)};`;
    const sees = `(bitcast<vec4u>(given${i}_${q}) != bitcast<vec4u>(vec4f(${UNSEEN})))`;
    return `      let given${i}_${q} = ${given(q)};
      let x${i}_${q} = select(given${i}_${q}, sum_bad${i}, is_bad${i} & ${sees});`;
  })}
${accumulators(tile, (d, q) => `      o${d}_${q} = fma(x${i}_${q}, vec4f(v${i}_${Math.floor(d / 4)}.${"xyzw"[d % 4]}), o${d}_${q});`)}`;
}
