/**
 * p · V of a block of 32 keys by a subgroup of four lanes, each of which has a quarter of the dimensions: eight keys at a time, those whose
 * exponentials a lane has.
 *
 * No branch saves anything there, for both of its sides are run, masked. So there is one way for all keys: a query that does not see one multiplies by
 * UNSEEN, and a value that is not finite is taken for 0 and instead of the exponentials of those that see it.
 */
import { kvNumbers, numberOf } from "./kv_types.ts";
import { KEYS, LANES, UNSEEN } from "./scores4.ts";
import { each, type Tile } from "./tile.ts";

/** Keys that are taken at once: half of a lane's. */
const AT_ONCE = KEYS / 2;

/** Dimensions of a lane. */
export const dimsOf = ({ headDim }: Tile): number => headDim / LANES;

const accumulators = (tile: Tile, text: (d: number, q: number) => string) =>
  each(dimsOf(tile), (d) => each(tile.quads, (q) => text(d, q)));

/** The parts of it. */
export const values4Fragment = {
  /** Declares the accumulators of the split, by dimension and quad. */
  declare: (tile: Tile): string => `${
    guards(tile)
      ? each(
          dimsOf(tile) / 4,
          (v) =>
            `  let own${v} = vec4u(sub * ${dimsOf(tile)}u) + vec4u(${[0, 1, 2, 3].map((c) => 4 * v + c).join(", ")}) < vec4u(params.value_dim);`,
        )
      : ""
  }
  var parts: array<vec4f, ${dimsOf(tile) * tile.quads}>;`,

  /** Folds the block into them: by quad as `keep` and `take` say. */
  fold(tile: Tile): string {
    const { quads, rows } = tile;
    const words = dimsOf(tile) / kvNumbers[tile.kvType].dims;
    return /* wgsl */ `
${accumulators(tile, (d, q) => `    var o${d}_${q} = vec4f();`)}
    var first = block;
    loop {
      let from_lane = (first - block) >> ${Math.log2(KEYS)}u;
      let odd = (first & ${AT_ONCE}u) != 0u;
      let at = v_at(page_of(row, min(first, end - 1u)), unit.kv_head, value_word, first & (PAGE - 1u)) >> 2u;
${each(AT_ONCE, (i) => `${load(tile, i, words / 4)}\n${add(tile, i)}`)}
      first += ${AT_ONCE}u;
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

/** Declares the i-th key's numbers in fours, and where they are guarded the sum of those that are not finite. */
function load(tile: Tile, i: number, vectors: number): string {
  const { dims } = kvNumbers[tile.kvType];
  const number = (d: number) => numberOf(`n${i}_${Math.floor(d / dims)}`, dims, d % dims);
  const fours = dimsOf(tile) / 4;
  const word = (l: number) => `kv[at + ${i}u * (params.value_words >> 2u) + ${l}u]`;
  const guarded = guards(tile);
  return `${tile.rows ? "" : `      let live${i} = first + ${i}u >= begin && first + ${i}u < end;`}
${each(
  vectors,
  (l) => `      let four${i}_${l} = ${tile.rows ? word(l) : `select(vec4u(), ${word(l)}, live${i})`};
${each(4, (c) => `      let n${i}_${4 * l + c} = kv_numbers(four${i}_${l}.${"xyzw"[c]});`)}`,
)}
${guarded ? `      var bad${i} = vec4f();` : ""}
${each(fours, (v) => {
  const four = `vec4f(${[0, 1, 2, 3].map((c) => number(4 * v + c)).join(", ")})`;
  if (!guarded) return `      let v${i}_${v} = ${four};`;
  return `      let raw${i}_${v} = ${four};
      let broken${i}_${v} = broken(raw${i}_${v});
      let v${i}_${v} = select(raw${i}_${v}, vec4f(), broken${i}_${v});
      bad${i} += select(vec4f(), raw${i}_${v}, broken${i}_${v} & own${v});`;
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
  const given = (q: number) => `subgroupShuffle(select(e${i}_${q}, e${i + AT_ONCE}_${q}, odd), from_lane)`;
  return `${each(tile.quads, (q) => {
    if (!guards(tile)) return `      let x${i}_${q} = ${given(q)};`;
    const sees = `(bitcast<vec4u>(given${i}_${q}) != bitcast<vec4u>(vec4f(${UNSEEN})))`;
    return `      let given${i}_${q} = ${given(q)};
      let x${i}_${q} = select(given${i}_${q}, sum_bad${i}, is_bad${i} & ${sees});`;
  })}
${accumulators(tile, (d, q) => `      o${d}_${q} = fma(x${i}_${q}, vec4f(v${i}_${Math.floor(d / 4)}.${"xyzw"[d % 4]}), o${d}_${q});`)}`;
}
