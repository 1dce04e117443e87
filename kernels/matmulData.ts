/** Inputs of the three fused matmuls' cases, how a launch walks them, and what must come out, in f64. */
import { activation, padded, product, randomMatrix, scalesTitle } from "./caseData.ts";
import type { LayoutName, ScaleType, Zeros } from "./formats/layout.ts";
import { BLOCK_ROWS, paddedRows } from "./formats/layout.ts";
import { layouts } from "./formats/layouts.ts";
import type { Activation } from "./fragments/act.ts";
import { activationShape } from "./fragments/activation.ts";
import { dotParams, type MatmulRows, type XFrom } from "./fragments/matmul.ts";
import { NARROW, type Narrow } from "./fragments/narrow_activation.ts";
import { narrowParams } from "./fragments/narrow_dot.ts";
import { partsOf, split, type Unit } from "./fragments/wide.ts";
import { WINDOW_BYTES, windowRows } from "./fragments/window.ts";
import { NONE } from "./kernel.ts";
import { narrowed, narrowValues } from "./narrowData.ts";
import { type Case, Random, type Testbed } from "./testbed.ts";
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
export const ownSums = ({ layout, storedSums, from }: MatmulShape): boolean =>
  layouts[layout].scaling === "affine" && !storedSums && narrowIn(from) === undefined;

/** The narrow activation that a shape asks for. */
const narrowIn = (from: XFrom | undefined): Narrow | undefined => NARROW.find((it) => it === from);

/** Largest NMSE: quantized and half weights against the same dequantized weights, and f32 sums. */
const LIMIT = 1e-10;
/** The same behind an activation: exp and tanh of drivers are good to about 1e-5. */
export const ACTIVATED_LIMIT = 1e-9;
/** Four products in a row are rounded to f16, 11 bits each; bytes are multiplied exactly and have the limits of f32. */
const HALVES_LIMIT = 3e-6;
/** Largest NMSE of a shape's outputs. */
export const limitOf = ({ from }: MatmulShape, limit = LIMIT): number => (from === "halves" ? HALVES_LIMIT : limit);

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
export function reference(shape: MatmulShape, outputs: number, from: MatmulInputs): Float64Array {
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
export function walkOf(
  bed: Testbed,
  shape: MatmulShape,
  inputs: MatmulInputs,
  storedSums: boolean,
  unit: Unit = "block",
) {
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

/** The inputs in buffers. */
export function upload(bed: Testbed, { matrix, act, narrow, aux, delta }: MatmulInputs) {
  const words = bed.buffer(matrix.packed.words);
  return {
    words,
    scales: matrix.layout.scaling !== "none" ? bed.buffer(matrix.packed.scales) : words,
    x: bed.buffer(narrow?.data ?? act.data, WINDOW_BYTES),
    aux: bed.buffer(aux),
    delta: bed.buffer(delta),
  };
}
/** Where y and z of the residual stream lie, and y before the step. */
export function residualStream(shape: MatmulShape, { capacity, lead, random }: MatmulInputs) {
  const z = activationShape(capacity, lead + shape.outputs);
  const y = activation(z.rows, z.cols, random.floats(z.rows * z.cols, shape.spread)).data.subarray(0, z.sums);
  return { z, y };
}

/** Inputs of norm_gate_up. Stored rows: 32 of gate, 32 of up, by turns, in whole pairs of blocks. */
export const gateUpInputs = (shape: MatmulShape): MatmulInputs =>
  matmulInputs(shape, 2 * paddedRows(shape.outputs), shape.shard * 2 * BLOCK_ROWS);

/** What a device must have for the case of a shape. */
export function needsOf({ from }: Pick<MatmulShape, "from">): Pick<Case, "needs"> {
  const narrow = narrowIn(from);
  return narrow === undefined ? {} : { needs: [NARROW_NEEDS[narrow]] };
}

/** Names all that a case varies. */
export function title(kernel: string, s: MatmulShape): string {
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
