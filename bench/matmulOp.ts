/** Matmuls as the model launches them, beside the naive kernel over the same weights. */
import type { Slot } from "../device/arena.ts";
import { type Program, Recorder } from "../device/program.ts";
import { readBuffer } from "../device/readback.ts";
import { activation } from "../kernels/caseData.ts";
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import { activate } from "../kernels/fragments/act.ts";
import { nmse, Random } from "../kernels/testbed.ts";
import type { Matrix } from "../models/matrix.ts";
import { addToResidual } from "../models/ops/addToResidual.ts";
import { gateUp } from "../models/ops/gateUp.ts";
import { project } from "../models/ops/project.ts";
import { newActivation, type Step } from "../models/step.ts";
import { NAIVE_GROUP, type NaiveLayout, naiveGrid, naiveMatvec } from "./naive_matvec.ts";
import { BufferSet, type BuiltOp, type PerfBed, type PerfOp } from "./perfOp.ts";
import { type RandomMatrix, randomMatrix } from "./randomMatrix.ts";

/** A matrix of a model and what multiplies by it. */
export interface MatmulSpec {
  readonly name: string;
  readonly kind: "project" | "gateUp" | "addToResidual";
  readonly layout: NaiveLayout;
  /** Stored rows: gate and up together where they alternate. */
  readonly outputs: number;
  readonly cols: number;
}

const EPS = 1e-5;
/** Two orders of summation in f32, and exp of drivers in silu. */
const LIMIT = 1e-9;

/** The op at a number of rows. `matrix` is made at the first need and kept: it is the same for all numbers of rows. */
export function matmulOps(spec: MatmulSpec, allRows: readonly number[], seed: number): PerfOp[] {
  let made: RandomMatrix | undefined;
  const matrix = () => {
    made ??= randomMatrix(new Random(seed), spec.layout, spec.outputs, spec.cols);
    return made;
  };
  const weights = spec.outputs * spec.cols;
  const bits = spec.layout === "affine4" ? 4 : 8;
  return allRows.map((rows) => ({
    name: spec.name,
    shape: `${spec.outputs} × ${spec.cols} ${spec.layout}/${NAIVE_GROUP}`,
    rows,
    bytes: (weights * bits) / 8 + (weights / NAIVE_GROUP) * 4,
    flops: 2 * weights * rows,
    weightColumns: weights * rows,
    build: (bed, copies) => build(bed, spec, matrix(), rows, copies),
  }));
}

async function build(
  bed: PerfBed,
  spec: MatmulSpec,
  matrix: RandomMatrix,
  rows: number,
  copies: number,
): Promise<BuiltOp> {
  const { gpu } = bed;
  const buffers = new BufferSet(gpu);
  const random = new Random(rows);
  const values = random.floats(rows * spec.cols);
  const act = activation(rows, spec.cols, values);
  const aux = buffers.add("norm weight", new Float32Array(spec.outputs).fill(1));
  const matrices = Array.from({ length: copies }, (_, i) => uploaded(buffers, spec, matrix, i));
  const recorder = new Recorder(gpu, bed.pipelines);
  const slots = record(recorder, spec, matrices, rows, aux);
  const program = await recorder.finish(bed.arena);

  const naiveRecorder = new Recorder(gpu, bed.pipelines);
  const x = buffers.add("x", values as Float32Array<ArrayBuffer>);
  const y = buffers.add("naive y", new Float32Array(rows * spec.outputs));
  for (let i = 0; i < copies; i++) {
    naiveMatvec(spec.layout, rows).launch(naiveRecorder, {
      buffers: { ...naiveWeights(buffers, matrix, i), x, y },
      params: { cols: spec.cols, outputs: spec.outputs },
      grid: naiveGrid(spec.outputs),
    });
  }
  const naive = await naiveRecorder.finish(bed.arena);
  return {
    program,
    naive,
    upload() {
      gpu.device.queue.writeBuffer(program.bufferOf(slots.x), 0, act.data);
      if (spec.kind === "addToResidual") {
        gpu.device.queue.writeBuffer(program.bufferOf(slots.out), 0, new Float32Array(rows * spec.outputs));
      }
    },
    async compare(run) {
      await run(program);
      const got = await read(
        bed,
        program,
        slots.out,
        rows * (spec.kind === "gateUp" ? spec.outputs / 2 : spec.outputs),
      );
      await run(naive);
      const dots = new Float32Array((await readBuffer(gpu, y)).buffer, 0, rows * spec.outputs);
      // One addition a copy: the residual stream is summed in place.
      const want = expected(spec, dots, values, rows).map((v) => (spec.kind === "addToResidual" ? v * copies : v));
      return { error: nmse(got, want), limit: LIMIT };
    },
    free() {
      program.destroy();
      naive.destroy();
      buffers.free();
    },
  };
}

/** A copy of the matrix as the model has it. */
function uploaded(buffers: BufferSet, spec: MatmulSpec, { stored }: RandomMatrix, i: number): Matrix {
  const { name, layout, outputs, cols } = spec;
  const words = buffers.add(`${name} words ${i}`, stored.words);
  const scales = buffers.add(`${name} scales ${i}`, stored.scales);
  const blocks = outputs / BLOCK_ROWS;
  const shard = { firstBlock: 0, blocks, words, scales };
  return { name, cols, blocks, unit: 1, parts: [], layout, group: NAIVE_GROUP, scaleType: "f16", shards: [shard] };
}

/** A copy of it by rows. */
function naiveWeights(buffers: BufferSet, { rowMajor: { words, scales, biases } }: RandomMatrix, i: number) {
  return {
    words: buffers.add(`naive words ${i}`, words),
    scales: buffers.add(`naive scales ${i}`, scales),
    biases: buffers.add(`naive biases ${i}`, biases),
  };
}

async function read({ gpu }: PerfBed, program: Program, slot: Slot, count: number): Promise<Float32Array> {
  return new Float32Array((await readBuffer(gpu, program.bufferOf(slot), 0, count * 4)).buffer);
}

function record(recorder: Recorder, spec: MatmulSpec, matrices: readonly Matrix[], rows: number, aux: GPUBuffer) {
  const unused = {
    batch: aux,
    ropes: [],
    kv: [],
    groups: [],
    kvType: "f16",
    splits: 0,
    samples: rows,
    samplesAt: 0,
  } as const;
  const step: Step = { ...unused, precision: "f32", recorder, aux, rows, oneRowEach: true, everyRow: true };
  const x = { z: newActivation(step, rows, spec.cols, "x"), eps: EPS };
  const next = { kind: "rms", weight: { offset: 0 }, eps: EPS } as const;
  const label = spec.name;
  let out: Slot | undefined;
  const residual = {
    y: recorder.slot(rows * spec.outputs * 4, "residual"),
    z: newActivation(step, rows, spec.outputs, "z"),
    eps: EPS,
  };
  for (const matrix of matrices) {
    switch (spec.kind) {
      case "project":
        out = project(step, [matrix], x, { label }).slot;
        break;
      case "gateUp":
        out = gateUp(step, [matrix], x, { activation: "silu", label }).slot;
        break;
      case "addToResidual":
        out = addToResidual(step, { matrix, bias: undefined, label }, x.z, residual, next).y;
        break;
      default:
        spec.kind satisfies never;
    }
  }
  if (out === undefined) throw new RangeError(`${spec.name}: recorded over no matrix`);
  return { x: x.z.slot, out };
}

/** What the op makes of w · x, in f64. */
export function expected(
  { kind, outputs, cols }: Pick<MatmulSpec, "kind" | "outputs" | "cols">,
  dots: Float32Array,
  x: Float32Array,
  rows: number,
): Float64Array {
  if (kind === "addToResidual") return Float64Array.from(dots);
  const inverse = Array.from({ length: rows }, (_, m) => {
    const squares = x.subarray(m * cols, (m + 1) * cols).reduce((sum, v) => sum + v * v, 0);
    return 1 / Math.sqrt(squares / cols + EPS);
  });
  const at = (m: number, n: number) => (dots[m * outputs + n] ?? Number.NaN) * (inverse[m] ?? Number.NaN);
  const width = kind === "gateUp" ? outputs / 2 : outputs;
  return Float64Array.from({ length: rows * width }, (_, i) => {
    const [m, n] = [Math.floor(i / width), i % width];
    if (kind === "project") return at(m, n);
    const gate = Math.floor(n / BLOCK_ROWS) * 2 * BLOCK_ROWS + (n % BLOCK_ROWS); // blocks of gate and of up by turns
    return activate(at(m, gate), "silu") * at(m, gate + BLOCK_ROWS);
  });
}
