/** Cases of narrow activations: bytes and halves at plain, huge, tiny and zero values, with outliers, and where a value is not finite. */
import { activation } from "./caseData.ts";
import { BLOCK_COLS } from "./formats/layout.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { NARROW_RUNS, narrowActivation } from "./narrow.ts";
import { type NarrowData, narrowed, pairsOf, scaleOf, storedValues } from "./narrowData.ts";
import { type Case, type Comparison, Random, type Testbed } from "./testbed.ts";

/** What the values of a case are like; one run in five is zero in all of them. */
const KINDS = ["plain", "1e5", "1e-5", "outlier", "tiny", "huge", "broken"] as const;
type Kind = (typeof KINDS)[number];

const SPREADS: Readonly<Record<Kind, number>> = {
  plain: 1,
  "1e5": 1e5,
  "1e-5": 1e-5,
  outlier: 0.1,
  tiny: 1e-34,
  huge: 1e37,
  broken: 1,
};

/** Largest distance from x in steps of the stored values: half a step, and what the division by the scale may be off. */
const BYTE_STEPS = 0.5 + 1e-4;
/** Of halves, relative to the run's power of two: half of the last bit below 2, or all of it where a driver cuts off. */
const HALF_STEP = 2 ** -10;

function valuesOf(kind: Kind, random: Random, rows: number, cols: number): Float32Array {
  const values = random.floats(rows * cols, SPREADS[kind]);
  values.forEach((_, i) => {
    const run = Math.floor(i / cols) * 3 + Math.floor((i % cols) / BLOCK_COLS);
    if (run % 5 === 4) values[i] = 0;
    else if (kind === "outlier" && i % 37 === 0) values[i] = 1e5;
    else if (kind === "broken" && i % 71 === 3) values[i] = i % 2 === 0 ? Number.NaN : Number.POSITIVE_INFINITY;
  });
  return values;
}

async function run(bed: Testbed, narrow: Narrow, { shape, data }: ReturnType<typeof activation>): Promise<NarrowData> {
  const want = narrowed(narrow, shape, data).shape;
  const out = bed.output(want.bytes / 4);
  const params = {
    quads: shape.stride / 4,
    runs: shape.runs,
    x_squares: shape.squares,
    sums: want.sums,
    squares: want.squares,
  };
  const grid = [Math.ceil(shape.runs / NARROW_RUNS), shape.rows, 1] as const;
  const buffers = { x: bed.buffer(data), out };
  await bed.submit((recorder) => narrowActivation(narrow).launch(recorder, { buffers, params, grid }));
  return { shape: want, data: await bed.u32(out) };
}

/** How many values of finite runs are further from x than a step allows. */
function strays(narrow: Narrow, got: NarrowData, x: Float32Array): Comparison {
  const { cols, runs } = got.shape;
  const { scales } = pairsOf(got);
  const stored = storedValues(narrow, got);
  const far = Array.from(x, (v, i) => {
    const scale = scales[Math.floor(i / cols) * runs + Math.floor((i % cols) / BLOCK_COLS)] ?? Number.NaN;
    if (Number.isNaN(scale)) return 0;
    const distance = scale === 0 ? stored[i] : (stored[i] ?? Number.NaN) - v / scale;
    return Math.abs(distance ?? Number.NaN) <= (narrow === "bytes" ? BYTE_STEPS : HALF_STEP) ? 0 : 1;
  });
  return { name: "values further off than a step", got: [far.reduce((a: number, b) => a + b, 0)], want: [0], limit: 0 };
}

/** Sums of what is stored, in f64 and by runs. */
function sumsOf(narrow: Narrow, got: NarrowData): Float64Array {
  const { rows, cols, runs } = got.shape;
  const { scales } = pairsOf(got);
  const out = new Float64Array(rows * runs);
  storedValues(narrow, got).forEach((v, i) => {
    const at = Math.floor(i / cols) * runs + Math.floor((i % cols) / BLOCK_COLS);
    out[at] = (out[at] ?? Number.NaN) + v * (scales[at] ?? Number.NaN);
  });
  return out;
}

function narrowCase(narrow: Narrow, kind: Kind, rows: number, cols: number, seed: number): Case {
  return {
    kernel: "narrow",
    title: `narrow ${narrow} ${kind} rows=${rows} cols=${cols} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed * 6007);
      const x = valuesOf(kind, random, rows, cols);
      const act = activation(rows, cols, x, random.floats(rows * cols));
      const got = await run(bed, narrow, act);
      const { scales, sums } = pairsOf(got);
      const want = Array.from({ length: rows * act.shape.runs }, (_, at) => {
        const values = act.data.subarray(at * BLOCK_COLS, (at + 1) * BLOCK_COLS);
        const finite = values.every((v) => Number.isFinite(v));
        return finite
          ? scaleOf(
              narrow,
              values.reduce((most, v) => Math.max(most, Math.abs(v)), 0),
            )
          : Number.NaN;
      });
      const broken = (values: ArrayLike<number>) => Array.from(values, (v) => (Number.isNaN(v) ? 1 : 0));
      const whole = (values: ArrayLike<number>) => Array.from(values).filter((_, at) => !Number.isNaN(want[at]));
      const squares = new Uint32Array(act.data.buffer).subarray(act.shape.squares);
      return [
        { name: "runs that are not finite", got: broken(scales), want: broken(want), limit: 0 },
        { name: "sums that are not finite", got: broken(sums), want: broken(want), limit: 0 },
        { name: "scales", got: whole(scales), want: whole(want), limit: 0 },
        strays(narrow, got, x),
        { name: "sums", got: whole(sums), want: whole(sumsOf(narrow, got)), limit: 1e-12 },
        { name: "squares", got: got.data.subarray(got.shape.squares), want: squares, limit: 0 },
      ];
    },
  };
}

/** `count` cases each of bytes and halves, kinds of values by turns. */
export function narrowCases(count: number, firstSeed: number): Case[] {
  let seed = firstSeed;
  return NARROW.flatMap((narrow) =>
    Array.from({ length: count }, (_, i) => {
      const random = new Random(seed * 17);
      const rows = 1 + random.below(5);
      return narrowCase(
        narrow,
        KINDS[i % KINDS.length] ?? "plain",
        rows,
        random.pick([1, 31, 96, 257, 300, 576]),
        seed++,
      );
    }),
  );
}
