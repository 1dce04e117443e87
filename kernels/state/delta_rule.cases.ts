/** Cases of the gated delta rule: shared queries and keys, any sizes of heads, sequences that begin, go on and share steps. */
import { columns, runSums } from "../caseData.ts";
import { paddedCols } from "../formats/layout.ts";
import { activationShape } from "../fragments/activation.ts";
import { NONE } from "../kernel.ts";
import { type Case, type Comparison, Random, type Testbed } from "../testbed.ts";
import { deltaRule } from "./delta_rule.ts";
import { rowCounts, rowsOfStep, type StepsShape, stateCount, statefulSteps, stateOf, stepsTitle } from "./stateData.ts";

/** One case. */
export interface DeltaCaseShape extends StepsShape {
  readonly keyHeads: number;
  readonly group: number;
  readonly keyDim: number;
  readonly valueDim: number;
  /** Added to `a`: strongly negative, the state hardly decays; positive, it is gone at once. */
  readonly shift: number;
  readonly seed: number;
}

const EPS = 1e-6;
/** What lies before the recurrence's part of a state: the convolution's. */
const STATE_AT = 12;

function sizesOf({ keyHeads, group, keyDim, valueDim }: DeltaCaseShape) {
  const heads = keyHeads * group;
  const vAt = 2 * keyHeads * keyDim + 8;
  const zAt = 4;
  const bAt = zAt + heads * valueDim;
  const own = heads * keyDim * valueDim;
  return {
    heads,
    kAt: keyHeads * keyDim + 4,
    vAt,
    xStride: vAt + heads * valueDim + 3,
    zAt,
    bAt,
    aAt: bAt + heads + 1,
    pStride: bAt + 2 * heads + 5,
    cols: heads * valueDim,
    own,
    stateStride: STATE_AT + own + 4,
  };
}

/** Random inputs: all rows of the sequences, and the states before the first step: NaN where a sequence begins. */
export function deltaInputs(shape: DeltaCaseShape) {
  const random = new Random(shape.seed);
  const sizes = sizesOf(shape);
  const rows = rowCounts(shape).reduce((a, b) => a + b, 0);
  const x = random.floats(rows * sizes.xStride, 1.5);
  const p = random.floats(rows * sizes.pStride, 2).map((v, i) => {
    const isA = i % sizes.pStride >= sizes.aAt && i % sizes.pStride < sizes.aAt + sizes.heads;
    return isA ? v + shape.shift : v;
  });
  const aLog = random.floats(sizes.heads, 1);
  const dtBias = random.floats(sizes.heads, 1);
  const weight = random.floats(shape.valueDim);
  const state = random.floats(stateCount(shape) * sizes.stateStride, 0.5);
  shape.past.forEach((past, sequence) => {
    const begin = stateOf(shape, sequence) * sizes.stateStride + STATE_AT;
    if (past === 0) state.fill(Number.NaN, begin, begin + sizes.own);
  });
  return { sizes, rows, x, p, aLog, dtBias, weight, state };
}
type DeltaInputs = ReturnType<typeof deltaInputs>;

/** All steps of a shape over one buffer of states: out and its sums in the order of the sequences, and the states. */
export async function runDelta(bed: Testbed, shape: DeltaCaseShape, from: DeltaInputs) {
  const { sizes } = from;
  const whole = shape.valueDim % 32 === 0;
  const stride = paddedCols(sizes.cols);
  const runs = stride / 32;
  const out = new Float32Array(from.rows * stride);
  const sums = new Float32Array(from.rows * runs);
  const left: number[] = [];
  let { state } = from;
  for (const step of statefulSteps(shape)) {
    const z = activationShape(step.rows, sizes.cols);
    const [kept, written] = [bed.buffer(state), bed.output(whole ? z.squares : z.sums)];
    const params = {
      rows: step.rows,
      heads: sizes.heads,
      group: shape.group,
      key_dim: shape.keyDim,
      value_dim: shape.valueDim,
      x_stride: sizes.xStride,
      k_at: sizes.kAt,
      v_at: sizes.vAt,
      p_stride: sizes.pStride,
      z_at: sizes.zAt,
      b_at: sizes.bAt,
      a_at: sizes.aAt,
      a_log: 0,
      dt_bias: sizes.heads,
      weight: 2 * sizes.heads,
      scale: 1 / Math.sqrt(shape.keyDim),
      eps: EPS,
      state_stride: sizes.stateStride,
      state_at: STATE_AT,
      out_stride: stride,
      out_runs: runs,
      out_sums: whole ? z.sums : NONE,
    };
    const buffers = {
      x: bed.buffer(rowsOfStep(step, from.x, sizes.xStride)),
      p: bed.buffer(rowsOfStep(step, from.p, sizes.pStride)),
      aux: bed.buffer(new Float32Array([...from.aLog, ...from.dtBias, ...from.weight])),
      batch: bed.buffer(step.batch),
      state: kept,
      out: written,
    };
    const grid = [sizes.heads, step.rows, 1] as const;
    await bed.submit((recorder) => deltaRule.launch(recorder, { buffers, params, grid }));
    const got = await bed.f32(written);
    for (const [row, index] of step.indices.entries()) {
      out.set(got.subarray(row * stride, (row + 1) * stride), index * stride);
      if (whole) sums.set(got.subarray(z.sums + row * runs, z.sums + (row + 1) * runs), index * runs);
    }
    left.push(...got.subarray(step.indices.length * stride, z.sums));
    if (whole) left.push(...got.subarray(z.sums + step.indices.length * runs));
    state = await bed.f32(kept);
  }
  return { out, sums, state, stride, whole, padding: left };
}

const at = (values: ArrayLike<number>, i: number): number => values[i] ?? Number.NaN;
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const normed = (values: readonly number[]): number[] => {
  const length = Math.sqrt(sum(values.map((v) => v * v)) + 1e-6);
  return values.map((v) => v / length);
};

/** One token of one head in f64: changes `s` (key_dim, value_dim), returns what is read. */
function token(shape: DeltaCaseShape, from: DeltaInputs, row: number, head: number, s: number[][]): number[] {
  const { sizes, x, p } = from;
  const { keyDim, valueDim, group } = shape;
  const take = (begin: number, count: number) => Array.from({ length: count }, (_, i) => at(x, begin + i));
  const own = row * sizes.xStride;
  const shared = own + Math.floor(head / group) * keyDim;
  const q = normed(take(shared, keyDim)).map((v) => v / Math.sqrt(keyDim));
  const k = normed(take(shared + sizes.kAt, keyDim));
  const wanted = take(own + sizes.vAt + head * valueDim, valueDim);
  const [b, a] = [sizes.bAt, sizes.aAt].map((column) => at(p, row * sizes.pStride + column + head)) as [number, number];
  const beta = 1 / (1 + Math.exp(-b));
  const decay = Math.exp(-Math.exp(at(from.aLog, head)) * Math.log1p(Math.exp(a + at(from.dtBias, head))));
  const o = wanted.map((target, v) => {
    const before = s.map((line) => decay * at(line, v));
    const delta = beta * (target - sum(before.map((value, i) => value * at(k, i))));
    const after = before.map((value, i) => value + at(k, i) * delta);
    for (const [i, line] of s.entries()) line[v] = at(after, i);
    return sum(after.map((value, i) => value * at(q, i)));
  });
  const factor = 1 / Math.sqrt(sum(o.map((v) => v * v)) / valueDim + EPS);
  return o.map((value, v) => {
    const z = at(p, row * sizes.pStride + sizes.zAt + head * valueDim + v);
    return value * factor * at(from.weight, v) * (z / (1 + Math.exp(-z)));
  });
}

function expected(shape: DeltaCaseShape, from: DeltaInputs) {
  const { sizes, rows } = from;
  const { keyDim, valueDim } = shape;
  const out = new Float64Array(rows * sizes.cols);
  const states = Float64Array.from(from.state);
  let first = 0;
  rowCounts(shape).forEach((count, sequence) => {
    for (let head = 0; head < sizes.heads; head++) {
      const begin = stateOf(shape, sequence) * sizes.stateStride + STATE_AT + head * keyDim * valueDim;
      const fresh = shape.past[sequence] === 0;
      const s = Array.from({ length: keyDim }, (_, i) =>
        Array.from({ length: valueDim }, (_, v) => (fresh ? 0 : at(from.state, begin + i * valueDim + v))),
      );
      for (let row = first; row < first + count; row++)
        out.set(token(shape, from, row, head, s), row * sizes.cols + head * valueDim);
      states.set(s.flat(), begin);
    }
    first += count;
  });
  return { out, states };
}

function deltaCase(shape: DeltaCaseShape): Case {
  const { keyHeads, group, keyDim, valueDim, shift, seed } = shape;
  return {
    kernel: "delta_rule",
    title: `delta_rule heads=${keyHeads}x${group} dims=${keyDim},${valueDim} shift=${shift} ${stepsTitle(shape)} seed=${seed}`,
    async run(bed) {
      const from = deltaInputs(shape);
      const got = await runDelta(bed, shape, from);
      const want = expected(shape, from);
      const { cols } = from.sizes;
      const outside = (data: ArrayLike<number>) =>
        Array.from(data).filter((_, i) => {
          const inside = (i % from.sizes.stateStride) - STATE_AT;
          return i < from.sizes.stateStride || inside < 0 || inside >= from.sizes.own;
        });
      const behind = columns(got.out, from.rows, got.stride, cols, got.stride - cols);
      return [
        { name: "out", got: columns(got.out, from.rows, got.stride, 0, cols), want: want.out, limit: 1e-9 },
        { name: "states", got: got.state, want: want.states, limit: 1e-10 },
        { name: "what is not its state", got: outside(got.state), want: outside(from.state), limit: 0 },
        { name: "columns behind the heads", got: behind, want: behind.map(() => 0), limit: 0 },
        ...(got.whole ? [{ name: "sums", got: got.sums, want: runSums(want.out, from.rows, cols), limit: 1e-9 }] : []),
        { name: "rows of nobody", got: got.padding, want: got.padding.map(() => 0), limit: 0 },
      ] satisfies Comparison[];
    },
  };
}

/** `count` random shapes; the first are one row of one number, vectors longer than a workgroup has lanes, and a long state that hardly decays. */
export function deltaRuleCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 7001);
    const past = [[0], [0, 3], [0, 9]][i] ?? [0, random.below(3), 1 + random.below(90)];
    const steps = [[[1]], [[2, 1]], [[40, 1]]][i] ?? [
      [random.below(7), 1 + random.below(6), random.below(5)],
      [1, 1, random.below(4)],
    ];
    return deltaCase({
      keyHeads: [1, 1][i] ?? 1 + random.below(3),
      group: [1, 2][i] ?? 1 + random.below(3),
      keyDim: [1, 140][i] ?? random.pick([8, 16, 24, 33, 64]),
      valueDim: [1, 256, 32][i] ?? random.pick([7, 16, 32, 48, 64]),
      shift: [0, 0, -8][i] ?? random.pick([-6, 0, 0, 3]),
      past,
      steps,
      padding: i === 0 ? 0 : random.below(3),
      seed,
    });
  });
}

/** Two of Qwen3-Next 80B's key heads. */
export function realDeltaRuleCases(firstSeed: number): Case[] {
  const step = { past: [0, 40], steps: [[5, 1]], padding: 0 };
  return [deltaCase({ ...step, keyHeads: 2, group: 2, keyDim: 128, valueDim: 128, shift: 0, seed: firstSeed })];
}
