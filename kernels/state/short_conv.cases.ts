/** Cases of the short convolution: gated on both sides or with an activation, over sequences that begin, go on and share steps. */
import { columns, padded, runSums } from "../caseData.ts";
import { paddedCols } from "../formats/layout.ts";
import { activate, activationCode } from "../fragments/act.ts";
import { activationShape } from "../fragments/activation.ts";
import { NONE } from "../kernel.ts";
import { type Case, type Comparison, Random, type Testbed } from "../testbed.ts";
import { shortConv } from "./short_conv.ts";
import { rowCounts, rowsOfStep, type StepsShape, stateCount, statefulSteps, stateOf, stepsTitle } from "./stateData.ts";

/** One case. */
export interface ConvShape extends StepsShape {
  readonly channels: number;
  readonly taps: number;
  /** Gates on both sides and no activation; else silu. */
  readonly gated: boolean;
  readonly bias: boolean;
  readonly seed: number;
}

/** In x of a gated one: before, after and x, each from a run on; else x alone, behind a quad of others. */
const xColumns = (stride: number, gated: boolean) =>
  gated ? { before: 0, after: stride, x: 2 * stride, width: 3 * stride + 4 } : { x: 4, width: stride + 8 };

/** Random inputs: all rows of the sequences, taps, bias, and the states before the first step: NaN where a sequence begins. */
export function convInputs(shape: ConvShape) {
  const random = new Random(shape.seed);
  const { channels, taps, gated } = shape;
  const stride = paddedCols(channels);
  const at = xColumns(stride, gated);
  const rows = rowCounts(shape).reduce((a, b) => a + b, 0);
  const zeroBehind = (v: number, i: number) => (i % stride < channels ? v : 0);
  const x = random.floats(rows * at.width, 2);
  for (const first of [at.x, ...(gated ? [0, stride] : [])]) {
    for (let i = 0; i < rows * stride; i++) {
      if (i % stride >= channels) x[Math.floor(i / stride) * at.width + first + (i % stride)] = 0;
    }
  }
  const weight = random.floats(taps * stride).map(zeroBehind);
  const bias = random.floats(stride).map(zeroBehind);
  const size = (taps - 1) * stride;
  const state = random.floats(stateCount(shape) * size, 2).map(zeroBehind);
  shape.past.forEach((past, sequence) => {
    const begin = stateOf(shape, sequence) * size;
    if (past === 0) state.fill(Number.NaN, begin, begin + size);
    // Before the sequence there is nothing, as the step that wrote the state left it.
    else state.fill(0, begin, begin + Math.max(0, taps - 1 - past) * stride);
  });
  return { x, weight, bias, state, stride, at, rows, size };
}
type ConvInputs = ReturnType<typeof convInputs>;

/** All steps of a shape over one buffer of states: rows of out and of its sums in the order of the sequences, and the states. */
export async function runConv(bed: Testbed, shape: ConvShape, from: ConvInputs) {
  const { stride, at, size } = from;
  const runs = stride / 32;
  const out = new Float32Array(from.rows * stride);
  const sums = new Float32Array(from.rows * runs);
  const left: Float32Array[] = [];
  let { state } = from;
  for (const step of statefulSteps(shape)) {
    const z = activationShape(step.rows, shape.channels);
    const [kept, written] = [bed.buffer(padded(state, Math.max(4, state.length))), bed.output(z.squares)];
    const params = {
      rows: step.rows,
      taps: shape.taps,
      activation: activationCode(shape.gated ? "linear" : "silu"),
      x_stride: at.width / 4,
      x_at: at.x / 4,
      before: at.before === undefined ? NONE : at.before / 4,
      after: at.after === undefined ? NONE : at.after / 4,
      weight: 0,
      bias: shape.bias ? from.weight.length / 4 : NONE,
      state_stride: size / 4,
      stride,
      runs,
      sums: z.sums,
    };
    const buffers = {
      x: bed.buffer(rowsOfStep(step, from.x, at.width)),
      aux: bed.buffer(new Float32Array([...from.weight, ...from.bias])),
      batch: bed.buffer(step.batch),
      state: kept,
      out: written,
    };
    await bed.submit((recorder) => shortConv.launch(recorder, { buffers, params, grid: [runs, step.rows, 1] }));
    const got = await bed.f32(written);
    for (const [row, index] of step.indices.entries()) {
      out.set(got.subarray(row * stride, (row + 1) * stride), index * stride);
      sums.set(got.subarray(z.sums + row * runs, z.sums + (row + 1) * runs), index * runs);
    }
    left.push(got.slice(step.indices.length * stride, z.sums), got.slice(z.sums + step.indices.length * runs));
    state = (await bed.f32(kept)).slice(0, state.length);
  }
  return { out, sums, state, padding: left.flatMap((words) => [...words]) };
}

/** The same in f64: u of all tokens of a sequence, then each row's sum. */
function expected(shape: ConvShape, { x, weight, bias, state, stride, at, rows, size }: ConvInputs) {
  const { channels, taps, gated } = shape;
  const out = new Float64Array(rows * channels);
  const states = Float64Array.from(state);
  let first = 0;
  rowCounts(shape).forEach((count, sequence) => {
    const begin = stateOf(shape, sequence) * size;
    for (let c = 0; c < channels; c++) {
      const factor = (row: number, column: number | undefined) =>
        column === undefined ? 1 : (x[(first + row) * at.width + column + c] ?? Number.NaN);
      const before = Array.from({ length: taps - 1 }, (_, i) =>
        shape.past[sequence] === 0 ? 0 : (state[begin + i * stride + c] ?? Number.NaN),
      );
      const u = [...before, ...Array.from({ length: count }, (_, i) => factor(i, at.before) * factor(i, at.x))];
      for (let row = 0; row < count; row++) {
        let sum = shape.bias ? (bias[c] ?? Number.NaN) : 0;
        for (let j = 0; j < taps; j++) sum += (weight[j * stride + c] ?? Number.NaN) * (u[row + j] ?? Number.NaN);
        out[(first + row) * channels + c] = activate(sum, gated ? "linear" : "silu") * factor(row, at.after);
      }
      u.slice(count).forEach((v, i) => {
        states[begin + i * stride + c] = v;
      });
    }
    if (count > 0) {
      for (let i = 0; i < size; i++) if (i % stride >= channels) states[begin + i] = 0;
    }
    first += count;
  });
  return { out, states };
}

function convCase(shape: ConvShape): Case {
  const { channels, taps, gated, bias, seed } = shape;
  const options = `${gated ? " gated" : ""}${bias ? " bias" : ""}`;
  return {
    kernel: "short_conv",
    title: `short_conv channels=${channels} taps=${taps}${options} ${stepsTitle(shape)} seed=${seed}`,
    async run(bed) {
      const from = convInputs(shape);
      const got = await runConv(bed, shape, from);
      const want = expected(shape, from);
      const limit = gated ? 1e-11 : 1e-10;
      const nobody = { got: got.state.subarray(0, from.size), want: from.state.subarray(0, from.size), limit: 0 };
      return [
        { name: "out", got: columns(got.out, from.rows, from.stride, 0, channels), want: want.out, limit },
        { name: "sums", got: got.sums, want: runSums(want.out, from.rows, channels), limit },
        { name: "states", got: got.state, want: want.states, limit: 1e-12 },
        { name: "the state of nobody", ...nobody },
        { name: "rows of nobody", got: got.padding, want: got.padding.map(() => 0), limit: 0 },
      ] satisfies Comparison[];
    },
  };
}

/** `count` random shapes; the first are one row of one channel, more taps than rows, and more rows than a workgroup has at once. */
export function shortConvCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 6151);
    const past = [[0], [0, 1, 9], [0, 3, 70]][i] ?? [0, random.below(4), 5 + random.below(90)];
    const steps = [[[1]], [[2, 1, 3]], [[19, 1, 12]]][i] ?? [
      [random.below(11), 1 + random.below(10), random.below(11)],
      [1, 1, random.below(9)],
    ];
    return convCase({
      channels: [1, 40][i] ?? random.pick([32, 48, 64, 72, 96, 129]),
      taps: [3, 9, 4][i] ?? 1 + random.below(6),
      gated: i % 2 === 0,
      bias: random.next() < 0.5,
      past,
      steps,
      padding: i === 0 ? 0 : random.below(4),
      seed,
    });
  });
}

/** LFM2 1.2B, and Qwen3-Next 80B's queries, keys and values. */
export function realShortConvCases(firstSeed: number): Case[] {
  const step = { past: [0, 40], steps: [[17, 1]], padding: 0, bias: false };
  return [
    convCase({ ...step, channels: 2048, taps: 3, gated: true, seed: firstSeed }),
    convCase({ ...step, channels: 8192, taps: 4, gated: false, seed: firstSeed + 1 }),
  ];
}
