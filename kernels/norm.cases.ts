/** Cases of norms on their own: both kinds, before and behind a block, with and without a bias and a next norm. */
import { padded, runSums } from "./caseData.ts";
import { paddedCols } from "./formats/layout.ts";
import { activationShape } from "./fragments/activation.ts";
import { NONE } from "./kernel.ts";
import { norm } from "./norm.ts";
import { type Case, type Comparison, Random, type Testbed } from "./testbed.ts";

/** One case. */
export interface NormShape {
  readonly rows: number;
  readonly cols: number;
  readonly centred: boolean;
  /** Whether the norm is of x and added to y; else it is of y. */
  readonly behind: boolean;
  readonly bias: boolean;
  readonly next: boolean;
  readonly scale: number;
  /** Added to every value: what a LayerNorm takes away again. */
  readonly offset: number;
  readonly seed: number;
}

const EPS = 1e-5;

/** Rows of `cols` values with `offset` added, as a matmul leaves them: zeros behind. */
function rowsOf(random: Random, rows: number, cols: number, offset: number): Float32Array {
  const stride = paddedCols(cols);
  const values = random.floats(rows * stride);
  return Float32Array.from(values, (v, i) => (i % stride < cols ? Math.fround(v + offset) : 0));
}

function inputsOf({ rows, cols, offset, seed }: NormShape) {
  const random = new Random(seed);
  const [x, y] = [rowsOf(random, rows, cols, offset), rowsOf(random, rows, cols, offset)];
  const [weight, bias, next] = [random.floats(cols), random.floats(cols), random.floats(cols)];
  return { x, y, weight, bias, next };
}

/** The kernel over rows `from` … of a case: what it leaves of y and z. */
export async function runNorm(bed: Testbed, shape: NormShape, from = 0, rows = shape.rows) {
  const { x, y, weight, bias, next } = inputsOf(shape);
  const z = activationShape(rows, shape.cols);
  const cut = (data: Float32Array) => data.slice(from * z.stride, (from + rows) * z.stride);
  const aux = [weight, bias, next].flatMap((vector) => [...padded(vector, z.stride)]);
  const stream = bed.buffer(cut(y));
  const out = bed.output(z.bytes / 4);
  const params = {
    cols: shape.cols,
    x_stride: shape.behind ? z.stride / 4 : NONE,
    centred: shape.centred ? 1 : 0,
    eps: EPS,
    scale: shape.scale,
    weight: 0,
    bias: shape.bias ? z.stride : NONE,
    next: shape.next ? 2 * z.stride : NONE,
    stride: z.stride,
    runs: z.runs,
    z_sums: z.sums,
    z_squares: z.squares,
  };
  const buffers = { x: bed.buffer(cut(x)), aux: bed.buffer(new Float32Array(aux)), y: stream, z: out };
  await bed.submit((recorder) => norm.launch(recorder, { buffers, params, grid: [rows, 1, 1] }));
  return { y: await bed.f32(stream), z: await bed.f32(out), shape: z };
}

/** What the kernel must leave of y and z, in f64. */
function expected(shape: NormShape): { y: Float64Array; z: Float64Array } {
  const { rows, cols, behind, scale } = shape;
  const from = inputsOf(shape);
  const stride = paddedCols(cols);
  const y = Float64Array.from(from.y);
  const z = new Float64Array(rows * stride);
  for (let row = 0; row < rows; row++) {
    const values = [...(behind ? from.x : from.y).subarray(row * stride, row * stride + cols)];
    const mean = shape.centred ? values.reduce((sum, v) => sum + v, 0) / cols : 0;
    const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / cols;
    values.forEach((v, k) => {
      const normed = ((v - mean) / Math.sqrt(variance + EPS)) * (from.weight[k] ?? Number.NaN);
      const out = Math.fround(scale) * (normed + (shape.bias ? (from.bias[k] ?? Number.NaN) : 0));
      const i = row * stride + k;
      if (behind) y[i] = (y[i] ?? Number.NaN) + out;
      z[i] = behind ? (y[i] ?? Number.NaN) * (shape.next ? (from.next[k] ?? Number.NaN) : 1) : out;
    });
  }
  return { y, z };
}

function normCase(shape: NormShape): Case {
  const kind = shape.centred ? "layer" : "rms";
  const { rows, cols, seed, scale, offset } = shape;
  const parts = [shape.bias ? " bias" : "", shape.next ? " next" : "", scale === 1 ? "" : ` scale=${scale}`].join("");
  return {
    kernel: "norm",
    title: `norm ${kind} ${shape.behind ? "behind" : "before"}${parts} rows=${rows} cols=${cols} offset=${offset} seed=${seed}`,
    async run(bed) {
      const { y, z, shape: at } = await runNorm(bed, shape);
      const want = expected(shape);
      // A mean of `offset` times the spread is taken away from values that f32 holds to 24 bits.
      const limit = 1e-11 * (1 + offset ** 2);
      const squares = shape.behind ? want.y : want.z;
      return [
        { name: "y", got: y, want: want.y, limit: shape.behind ? limit : 0 },
        { name: "z", got: z.subarray(0, at.sums), want: want.z, limit },
        { name: "sums", got: z.subarray(at.sums, at.squares), want: runSums(want.z, rows, at.stride), limit },
        { name: "squares", got: z.subarray(at.squares), want: runSums(squares, rows, at.stride, 2), limit },
      ] satisfies Comparison[];
    },
  };
}

/** `count` random shapes; the first are one value, and rows longer than a workgroup takes at once. */
export function normCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 4099);
    const behind = i % 2 === 1;
    const cols = [2, 1500][i] ?? random.pick([1, 31, 33, 48, 64, 96, 257, 301, 576]);
    return normCase({
      rows: [1, 3][i] ?? 1 + random.below(9),
      cols,
      // The norm of one value without its mean is its bias, whatever the value: nothing to compare by.
      centred: cols > 1 && random.next() < 0.5,
      behind,
      bias: random.next() < 0.5,
      next: behind && random.next() < 0.7,
      scale: random.next() < 0.3 ? 0.3 : 1,
      offset: random.pick([0, 0, 3]),
      seed,
    });
  });
}

/** The widths of Gemma 2 2B, Command R and Phi-2. */
export function realNormCases(firstSeed: number): Case[] {
  const common = { rows: 2, bias: false, next: false, scale: 1, offset: 0 };
  return [
    normCase({ ...common, cols: 2304, centred: false, behind: true, next: true, seed: firstSeed }),
    normCase({ ...common, cols: 8192, centred: true, behind: false, seed: firstSeed + 1 }),
    normCase({ ...common, cols: 2560, centred: true, behind: false, bias: true, seed: firstSeed + 2 }),
  ];
}
