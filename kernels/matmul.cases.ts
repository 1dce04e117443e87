/** Cases of the three fused matmuls: every layout, group, scale type and number of rows, against f64. */
import {
  activation,
  columns,
  padded,
  product,
  randomMatrix,
  runSums,
  scaleChoices,
  scalesTitle,
  untouched,
} from "./caseData.ts";
import type { LayoutName, ScaleType, Zeros } from "./formats/layout.ts";
import { BLOCK_ROWS, paddedRows } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import { ACTIVATIONS, type Activation, activate, activationCode } from "./fragments/act.ts";
import { activationShape } from "./fragments/activation.ts";
import { dotParams, type MatmulRows, type XFrom } from "./fragments/matmul.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { narrowParams, takesNarrow } from "./fragments/narrow_dot.ts";
import { partsOf, split, type Unit } from "./fragments/wide.ts";
import { WINDOW_BYTES, windowRows } from "./fragments/window.ts";
import { NONE } from "./kernel.ts";
import { launchRows } from "./launchRows.ts";
import { matmulResidual } from "./matmul_residual.ts";
import { narrowed, narrowValues } from "./narrowData.ts";
import { normGateUp } from "./norm_gate_up.ts";
import { normMatmul } from "./norm_matmul.ts";
import { type Case, type Comparison, Random, type Testbed } from "./testbed.ts";
import { NARROW_NEEDS, xFrom } from "./xFrom.ts";

/** What varies between the cases of a matmul. */
export interface MatmulShape {
  readonly layout: LayoutName;
  readonly group: number;
  readonly scaleType: ScaleType;
  readonly zeros?: Zeros | undefined;
  readonly sharedRows?: true | undefined;
  /** Outputs, columns, and rows of x, which are taken `m` at once. */
  readonly outputs: number;
  readonly cols: number;
  readonly rows: number;
  readonly m: MatmulRows;
  /** Unset: as the product does on the adapter. */
  readonly from?: XFrom;
  /** Of the columns, where workgroups are wide; unset: as the product has it for the shape. */
  readonly parts?: number;
  readonly norm: boolean;
  readonly bias: boolean;
  readonly delta: boolean;
  readonly storedSums: boolean;
  readonly activation: Activation;
  /** Blocks of 32 outputs (pairs of blocks of gate and up) that other row shards own. */
  readonly shard: number;
  /** Of x and of the residual stream: real models reach 1e5. */
  readonly spread: number;
  readonly seed: number;
}

/** A test matrix as the kernels are told of it. */
const storedAs = ({ matrix: { layout, shape }, aux }: MatmulInputs) => ({
  ...shape,
  layout: layout.name,
  tableAt: aux.length - 16,
});

/** Whether matmul_residual adds Σ x up itself; the others always find it stored. */
const ownSums = ({ layout, storedSums, from }: MatmulShape): boolean =>
  layouts[layout].scaling === "affine" && !storedSums && narrowIn(from) === undefined;

/** The narrow activation that a shape asks for. */
const narrowIn = (from: XFrom | undefined): Narrow | undefined => NARROW.find((it) => it === from);

/** Largest NMSE: quantized and half weights against the same dequantized weights, and f32 sums. */
const LIMIT = 1e-10;
const ACTIVATED_LIMIT = 1e-9; // exp and tanh of drivers are good to about 1e-5
/** Four products in a row are rounded to f16, 11 bits each; bytes are multiplied exactly and have the limits of f32. */
const HALVES_LIMIT = 3e-6;
const limitOf = ({ from }: MatmulShape, limit = LIMIT): number => (from === "halves" ? HALVES_LIMIT : limit);

/**
 * Inputs that all three share. Rows of x are padded to a multiple of m; `bias` and `weight` are zero behind, and NaN
 * where another shard's are.
 */
export function matmulInputs(shape: MatmulShape, outputs = shape.outputs, lead = shape.shard * BLOCK_ROWS) {
  const random = new Random(shape.seed);
  const { rows, cols, m } = shape;
  const capacity = Math.ceil(rows / m) * m;
  const matrix = randomMatrix(random, layouts[shape.layout], outputs, cols, shape.group, shape.scaleType, shape);
  const values = random.floats(capacity * cols, shape.spread);
  const residual = random.floats(capacity * cols, shape.spread);
  const biases = random.floats(outputs);
  const weight = random.floats(outputs);
  const width = lead + paddedRows(outputs); // padding stays zero, as a padded low-rank factor leaves it
  const delta = random.floats(capacity * width).map((value, i) => {
    const n = (i % width) - lead;
    return n < 0 ? Number.NaN : n < outputs ? value : 0;
  });
  const others = new Float32Array(lead).fill(Number.NaN);
  const vectors = [...others, ...padded(biases), ...others, ...padded(weight)];
  const aux = new Float32Array([...vectors, ...(matrix.shape.table ?? [])]);
  const act = activation(capacity, cols, values, residual);
  const kind = narrowIn(shape.from);
  const narrow = kind === undefined ? undefined : narrowed(kind, act.shape, act.data);
  // What is multiplied: what narrow values stand for, so that only the kernel's own error is seen.
  const x = kind === undefined || narrow === undefined ? values : narrowValues(kind, narrow);
  const { squares } = narrow?.shape ?? act.shape;
  const norm = { x_squares: shape.norm ? squares : NONE, hidden_size: cols, eps: 1e-5 };
  const inverse = Float64Array.from({ length: capacity }, (_, row) => {
    if (!shape.norm) return 1;
    const squares = residual.subarray(row * cols, (row + 1) * cols).reduce((sum, v) => sum + v * v, 0);
    return 1 / Math.sqrt(squares / cols + 1e-5);
  });
  return { random, capacity, lead, width, matrix, x, act, narrow, biases, weight, delta, aux, norm, inverse };
}
export type MatmulInputs = ReturnType<typeof matmulInputs>;

/** As `matmulInputs`; where the kernel adds Σ x up itself, stored sums hold what must not be read. */
export function residualInputs(shape: MatmulShape): MatmulInputs {
  const from = matmulInputs(shape);
  const { sums, squares } = from.act.shape;
  if (ownSums(shape)) from.act.data.fill(Number.NaN, sums, squares);
  return from;
}

/** inverse · w·x + bias + delta in f64: (capacity, outputs). */
function reference(shape: MatmulShape, outputs: number, from: MatmulInputs): Float64Array {
  const { capacity, matrix, x, inverse, biases, delta, lead, width } = from;
  const out = product(matrix.values, x, capacity, shape.cols, outputs);
  return out.map((value, i) => {
    const [row, n] = [Math.floor(i / outputs), i % outputs];
    const bias = shape.bias ? (biases[n] ?? Number.NaN) : 0;
    const low = shape.delta ? (delta[row * width + lead + n] ?? Number.NaN) : 0;
    return value * (inverse[row] ?? Number.NaN) + bias + low;
  });
}

/** How a launch walks the matrix: params of the inner product, of x as it is or narrow; params and workgroups of the split. */
function walkOf(bed: Testbed, shape: MatmulShape, inputs: MatmulInputs, storedSums: boolean, unit: Unit = "block") {
  const { width, lead, narrow, act } = inputs;
  const own = xFrom(bed.gpu);
  const rows = { rows: inputs.capacity, stride: act.shape.stride };
  const fits = own !== "broadcast" || windowRows(rows, shape.m) > 0;
  const from = shape.from ?? (fits ? own : "storage");
  const dot = dotParams(storedAs(inputs), act.shape, storedSums);
  const parts = shape.parts ?? partsOf({ blocks: width / BLOCK_ROWS, cols: shape.cols }, unit);
  const units = (width - lead) / BLOCK_ROWS / (unit === "pair" ? 2 : 1);
  const { params, workgroups } = split(from, dot, parts, units, unit);
  const grid = [workgroups, inputs.capacity / shape.m, 1] as const;
  return {
    from,
    grid,
    rows,
    params: { ...dot, ...(narrow === undefined ? {} : narrowParams(narrow.shape)), ...params },
  };
}

function upload(bed: Testbed, { matrix, act, narrow, aux, delta }: MatmulInputs) {
  const words = bed.buffer(matrix.packed.words);
  return {
    words,
    scales: matrix.layout.scaling !== "none" ? bed.buffer(matrix.packed.scales) : words,
    x: bed.buffer(narrow?.data ?? act.data, WINDOW_BYTES),
    aux: bed.buffer(aux),
    delta: bed.buffer(delta),
  };
}

/** Runs the kernel over all rows: out (capacity, width). */
export async function runNormMatmul(bed: Testbed, shape: MatmulShape, from: MatmulInputs): Promise<Float32Array> {
  const { capacity, lead, width } = from;
  const out = bed.output(capacity * width);
  const buffers = { ...upload(bed, from), out };
  const walk = walkOf(bed, shape, from, true);
  const params = {
    ...walk.params,
    ...from.norm,
    bias: shape.bias ? lead : NONE,
    delta_stride: shape.delta ? width / 4 : NONE,
    out_offset: lead / 4,
    out_stride: width / 4,
  };
  const { grid } = walk;
  await bed.submit((recorder) =>
    launchRows(normMatmul(shape.layout, shape.m, walk.from), recorder, { buffers, params, grid }, walk.rows),
  );
  return bed.f32(out);
}

/** The case of a shape for norm_matmul. */
export function normMatmulCase(shape: MatmulShape): Case {
  return {
    kernel: "norm_matmul",
    title: title("norm_matmul", shape),
    ...needsOf(shape),
    async run(bed) {
      const from = matmulInputs(shape);
      const { capacity, lead, width } = from;
      const all = await runNormMatmul(bed, shape, from);
      const got = columns(all, capacity, width, lead, shape.outputs);
      return [
        { name: "out", got, want: reference(shape, shape.outputs, from), limit: limitOf(shape) },
        untouched(all, (i) => i % width >= lead),
      ];
    },
  };
}

/** Where y and z of the residual stream lie, and y before the step. */
export function residualStream(shape: MatmulShape, { capacity, lead, random }: MatmulInputs) {
  const z = activationShape(capacity, lead + shape.outputs);
  const y = activation(z.rows, z.cols, random.floats(z.rows * z.cols, shape.spread)).data.subarray(0, z.sums);
  return { z, y };
}

/** Runs the kernel over all rows: y (capacity, stride) and the activation z. */
export async function runMatmulResidual(
  bed: Testbed,
  shape: MatmulShape,
  from: MatmulInputs,
  { z, y }: ReturnType<typeof residualStream>,
) {
  const out = { y: bed.buffer(y), z: bed.output(z.bytes / 4) };
  const buffers = { ...upload(bed, from), ...out };
  const walk = walkOf(bed, shape, from, !ownSums(shape));
  const params = {
    ...walk.params,
    bias: shape.bias ? 0 : NONE,
    norm_weight: from.width,
    delta_stride: shape.delta ? z.stride / 4 : NONE,
    first_block: from.lead / BLOCK_ROWS,
    y_stride: z.stride / 4,
    y_runs: z.runs,
    z_sums: z.sums,
    z_squares: z.squares,
  };
  const { grid } = walk;
  await bed.submit((recorder) =>
    launchRows(
      matmulResidual(shape.layout, shape.m, ownSums(shape), walk.from),
      recorder,
      { buffers, params, grid },
      walk.rows,
    ),
  );
  return { y: await bed.f32(out.y), z: await bed.f32(out.z) };
}

/** The case of a shape for matmul_residual. */
export function matmulResidualCase(shape: MatmulShape): Case {
  return {
    kernel: "matmul_residual",
    title: title("matmul_residual", { ...shape, norm: false }),
    ...needsOf(shape),
    async run(bed) {
      const plain = { ...shape, norm: false };
      const from = residualInputs(plain);
      const stream = residualStream(plain, from);
      const { z } = stream;
      const { outputs } = shape;
      const [runs, leadRuns] = [z.runs, from.lead / BLOCK_ROWS];
      const got = await runMatmulResidual(bed, plain, from, stream);
      const own = (data: Float32Array) => columns(data, z.rows, z.stride, from.lead, outputs);
      const ownRuns = (data: Float32Array) => columns(data, z.rows, runs, leadRuns, runs - leadRuns);
      const wantY = reference(plain, outputs, from).map((v, i) => v + (own(stream.y)[i] ?? Number.NaN));
      const wantZ = wantY.map((v, i) => v * (from.weight[i % outputs] ?? Number.NaN));
      const limit = limitOf(shape);
      const others = (data: Float32Array) => columns(data, z.rows, z.stride, 0, from.lead);
      return [
        { name: "y", got: own(got.y), want: wantY, limit },
        { name: "y of other shards", got: others(got.y), want: others(stream.y), limit: 0 },
        { name: "z", got: own(got.z), want: wantZ, limit },
        {
          name: "sums",
          got: ownRuns(got.z.subarray(z.sums, z.squares)),
          want: runSums(wantZ, z.rows, outputs),
          limit,
        },
        { name: "squares", got: ownRuns(got.z.subarray(z.squares)), want: runSums(wantY, z.rows, outputs, 2), limit },
        untouched(got.z, (i) => (i < z.sums ? i % z.stride >= from.lead : (i - z.sums) % runs >= leadRuns)),
      ] satisfies Comparison[];
    },
  };
}

/** Inputs of norm_gate_up. Stored rows: 32 of gate, 32 of up, by turns, in whole pairs of blocks. */
export const gateUpInputs = (shape: MatmulShape): MatmulInputs =>
  matmulInputs(shape, 2 * paddedRows(shape.outputs), shape.shard * 2 * BLOCK_ROWS);

/** Runs the kernel over all rows: the activation out (capacity, width / 2). */
export async function runNormGateUp(bed: Testbed, shape: MatmulShape, from: MatmulInputs) {
  const out = activationShape(from.capacity, from.width / 2);
  const result = bed.output(out.bytes / 4);
  const buffers = { ...upload(bed, from), out: result };
  const walk = walkOf(bed, shape, from, true, "pair");
  const params = {
    ...walk.params,
    ...from.norm,
    activation: activationCode(shape.activation),
    bias: shape.bias ? 0 : NONE,
    delta_stride: shape.delta ? from.width / 4 : NONE,
    first_pair: from.lead / (2 * BLOCK_ROWS),
    out_stride: out.stride / 4,
    out_runs: out.runs,
    out_sums: out.sums,
  };
  const { grid } = walk;
  await bed.submit((recorder) =>
    launchRows(normGateUp(shape.layout, shape.m, walk.from), recorder, { buffers, params, grid }, walk.rows),
  );
  return { out, got: await bed.f32(result) };
}

/** The case of a shape for norm_gate_up. */
export function normGateUpCase(shape: MatmulShape): Case {
  return {
    kernel: "norm_gate_up",
    title: `${title("norm_gate_up", shape)} ${shape.activation}`,
    ...needsOf(shape),
    async run(bed) {
      const from = gateUpInputs(shape);
      const { out, got } = await runNormGateUp(bed, shape, from);
      const [stored, lead, leadRuns] = [from.width - from.lead, from.lead / 2, from.lead / (2 * BLOCK_ROWS)];
      const cols = stored / 2;
      const both = reference(shape, stored, from);
      const want = Float64Array.from({ length: out.rows * cols }, (_, i) => {
        const [row, n] = [Math.floor(i / cols), i % cols];
        const at = row * stored + Math.floor(n / BLOCK_ROWS) * 2 * BLOCK_ROWS + (n % BLOCK_ROWS);
        return activate(both[at] ?? Number.NaN, shape.activation) * (both[at + BLOCK_ROWS] ?? Number.NaN);
      });
      const limit = limitOf(shape, ACTIVATED_LIMIT);
      const sums = columns(got.subarray(out.sums, out.squares), out.rows, out.runs, leadRuns, out.runs - leadRuns);
      return [
        { name: "out", got: columns(got, out.rows, out.stride, lead, cols), want, limit },
        { name: "sums", got: sums, want: runSums(want, out.rows, cols), limit },
        untouched(got, (i) =>
          i < out.sums ? i % out.stride >= lead : i < out.squares && (i - out.sums) % out.runs >= leadRuns,
        ),
      ];
    },
  };
}

/** What a device must have for the case of a shape. */
export function needsOf({ from }: Pick<MatmulShape, "from">): Pick<Case, "needs"> {
  const narrow = narrowIn(from);
  return narrow === undefined ? {} : { needs: [NARROW_NEEDS[narrow]] };
}

function title(kernel: string, s: MatmulShape): string {
  const weights = scalesTitle(s);
  const flags = [
    s.from === "wide" ? s.from : narrowIn(s.from),
    s.parts !== undefined && `parts=${s.parts}`,
    s.norm && "norm",
    s.bias && "bias",
    s.delta && "delta",
    kernel === "matmul_residual" && ownSums(s) && "own-sums",
    s.shard > 0 && `shard=${s.shard}`,
    s.spread > 1 && `spread=${s.spread}`,
  ].filter(Boolean);
  return `${kernel} ${weights} M=${s.rows}/${s.m} N=${s.outputs} K=${s.cols} ${flags.join(",")} seed=${s.seed}`;
}

const MAKERS = [normMatmulCase, matmulResidualCase, normGateUpCase] as const;

/** A layout at a number of rows. */
export type MatmulVariant = readonly [layout: LayoutName, m: MatmulRows];

/** `count` random shapes of each of the three kernels at each variant. */
export function matmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  let seed = firstSeed;
  return Array.from({ length: count }, () =>
    from.flatMap(([layout, m]) => MAKERS.map((make) => make(randomShape(layout, m, seed++)))),
  ).flat();
}

/** `count` random shapes of norm_matmul at one row for each layout: enough to see that a layout is decoded right. */
export function normMatmulCases(names: readonly LayoutName[], count: number, firstSeed: number): Case[] {
  return names.flatMap((layout, n) =>
    Array.from({ length: count }, (_, i) => normMatmulCase(randomShape(layout, 1, firstSeed + n * count + i))),
  );
}

/** Integer zeros in place of biases, and groups that are half a run of 32, through norm_matmul at one row. */
export function groupCases(firstSeed: number): Case[] {
  const ways = [
    { layout: "affine4", zeros: { bits: 4, add: 1 }, scaleType: "f16", group: 32 },
    { layout: "affine4", zeros: { bits: 4, add: 0 }, scaleType: "bf16", group: 64 },
    { layout: "affine4", zeros: { bits: 0, add: 8 }, scaleType: "f16", group: 128 },
    { layout: "affine8", zeros: { bits: 8, add: 1 }, scaleType: "f32", group: 32 },
    { layout: "affine8", zeros: { bits: 0, add: 128 }, scaleType: "bf16", group: 32 },
    { layout: "e2m1", scaleType: "e4m3", group: 16 },
    { layout: "e2m1", scaleType: "e8m0", group: 8 },
    { layout: "e4m3", scaleType: "e8m0", group: 32 },
    { layout: "codebook4", scaleType: "f32", group: 16 },
    { layout: "e4m3", scaleType: "f32", group: 32, sharedRows: true },
  ] as const;
  return ways.flatMap((way, n) =>
    [3, 37].map((groups, i) =>
      normMatmulCase({
        ...randomShape(way.layout, 1, firstSeed + 2 * n + i),
        spread: 1,
        ...way,
        cols: groups * way.group,
      }),
    ),
  );
}

/** Narrow activations: `count` random shapes of each kernel at each variant that takes them, and one each with values of 1e5. */
export function narrowMatmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  const takes = from.filter(([layout]) => takesNarrow(layouts[layout]));
  let seed = firstSeed;
  return Array.from({ length: count }, (_, i) =>
    takes.flatMap(([layout, m]) =>
      NARROW.flatMap((narrow) =>
        MAKERS.map((make) => {
          const shape = randomShape(layout, m, seed++);
          return make({ ...shape, from: narrow, spread: i === 0 ? 1e5 : 1 });
        }),
      ),
    ),
  ).flat();
}

/**
 * Wide workgroups: `count` random shapes of each kernel at each variant, numbers of parts by turns. Blocks fill no workgroup, nor groups a
 * part; some parts have none.
 */
export function wideMatmulCases(from: readonly MatmulVariant[], count: number, firstSeed: number): Case[] {
  let seed = firstSeed;
  return Array.from({ length: count }, () =>
    from.flatMap(([layout, m]) =>
      MAKERS.map((make) => {
        const random = new Random(seed * 104_729);
        const choices = make === normGateUpCase ? [4, 1, 2] : [8, 1, 4, 2];
        const parts = choices[seed % choices.length] ?? Number.NaN;
        const shape = randomShape(layout, m, seed++);
        const { scaling } = layouts[layout];
        const group = scaling === "scale" && random.next() < 0.5 ? 16 : shape.group; // half a run
        const cols = scaling === "none" ? 1 + random.below(900) : group * (1 + random.below(20));
        return make({ ...shape, group, cols, outputs: 1 + random.below(600), from: "wide", parts });
      }),
    ),
  ).flat();
}

function randomShape(layout: LayoutName, m: MatmulRows, seed: number): MatmulShape {
  const random = new Random(seed * 7919);
  const group = random.pick([32, 64, 128]);
  return {
    layout,
    group,
    scaleType: random.pick(scaleChoices(layouts[layout])),
    outputs: 1 + random.below(100),
    cols: layouts[layout].scaling !== "none" ? group * (1 + random.below(4)) : 1 + random.below(300),
    rows: random.pick([1, m, m, m + 1, 3 * m]),
    m,
    norm: random.next() < 0.7,
    bias: random.next() < 0.4,
    delta: random.next() < 0.3,
    storedSums: random.next() < 0.6,
    activation: random.pick(ACTIVATIONS),
    shard: random.next() < 0.25 ? 1 + random.below(3) : 0,
    spread: random.next() < 0.15 ? 1e5 : 1,
    seed,
  };
}

/** (outputs, cols) of SmolLM2-135M: qkv, o_proj, down_proj, gate_up, a slice of the head. */
const REAL_MATRICES = [
  { make: normMatmulCase, outputs: 960, cols: 576 },
  { make: matmulResidualCase, outputs: 576, cols: 576 },
  { make: matmulResidualCase, outputs: 576, cols: 1536 },
  { make: normGateUpCase, outputs: 1536, cols: 576 },
  { make: normMatmulCase, outputs: 2048, cols: 576 },
] as const;

/** Matrices of a real model at each variant; the head is a slice of its 49,152 rows. `way`: how x comes, if not as on the adapter. */
export function realMatmulCases(from: readonly MatmulVariant[], firstSeed: number, way?: XFrom): Case[] {
  let seed = firstSeed;
  return from.flatMap(([layout, m]) =>
    REAL_MATRICES.map(({ make, outputs, cols }) =>
      make({
        layout,
        group: 64, // MLX's default group size
        scaleType: "f16",
        outputs,
        cols,
        rows: m,
        m,
        norm: true,
        bias: false,
        delta: false,
        storedSums: seed % 4 > 0,
        activation: "silu",
        shard: outputs === 2048 ? 2 : 0,
        spread: seed % 3 === 0 ? 1e5 : 1,
        ...(way === undefined ? {} : { from: way }),
        seed: seed++,
      }),
    ),
  );
}

/** Shapes at the edges: one output, one column, one row, one over a block, and a wide one. */
export function edgeMatmulCases(from: readonly MatmulVariant[], firstSeed: number): Case[] {
  let seed = firstSeed;
  return from.flatMap(([layout, m]) => {
    const grouped = layouts[layout].scaling !== "none";
    const sizes: readonly (readonly [outputs: number, cols: number])[] = [
      [1, grouped ? 32 : 1],
      [33, grouped ? 32 : 33],
      [31, grouped ? 96 : 31],
      [40, Math.min(8192, 16384 / m)], // as many as a window has room for
    ];
    return sizes.flatMap(([outputs, cols]) =>
      MAKERS.map((make) =>
        make({
          layout,
          group: 32,
          scaleType: "f32",
          outputs,
          cols,
          rows: 1,
          m,
          norm: true,
          bias: true,
          delta: true,
          storedSums: false,
          activation: "gelu_pytorch_tanh",
          shard: 0,
          spread: 1,
          seed: seed++,
        }),
      ),
    );
  });
}
