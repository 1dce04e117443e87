/** In a page: a matmul of SmolLM2's gate and up by ingle in 4 bits, by the naive kernel, and by gpu.js in f32. */
import { Arena } from "../../device/arena.ts";
import { openGpu } from "../../device/gpu.ts";
import { PipelineCache } from "../../device/pipelines.ts";
import { matmulOps } from "../matmulOp.ts";
import { median } from "../statistics.ts";
import { timeProgram, timeTogether } from "../timing.ts";

/** Stored rows and columns of gate_up_proj. */
const [OUTPUTS, COLS] = [3072, 576];
const COPIES = 8;
const REPETITIONS = 5;

/** A result that stays on the GPU. */
interface GpuJsBuffer {
  toArray(): Promise<readonly (readonly number[])[]>;
}
type GpuJsKernel = (...inputs: readonly unknown[]) => Promise<GpuJsBuffer>;
interface GpuJs {
  createKernel(body: string, settings: unknown): GpuJsKernel;
}

/** ms a matmul. */
async function ingle(rows: number) {
  const gpu = await openGpu();
  const bed = { gpu, pipelines: new PipelineCache(gpu), arena: new Arena(gpu) };
  const spec = { name: "gate_up_proj", kind: "project", layout: "affine4", outputs: OUTPUTS, cols: COLS } as const;
  const [op] = matmulOps(spec, [rows], 1);
  if (op === undefined) throw new RangeError("matmulOps: made none");
  const built = await op.build(bed, COPIES);
  built.upload();
  const agreement = await built.compare(async (program) => void (await timeProgram(gpu, program, 0)));
  if (agreement === undefined || built.naive === undefined) throw new RangeError("gate_up_proj: has no naive kernel");
  if (!(agreement.error <= agreement.limit))
    throw new RangeError(`gate_up_proj: NMSE ${agreement.error}, expected at most ${agreement.limit}`);
  const [own = [], naive = []] = await timeTogether(gpu, [built.program, built.naive], REPETITIONS);
  gpu.close();
  return { ingleMs: median(own) / COPIES, naiveMs: median(naive) / COPIES };
}

/** As gpu.js's own examples multiply; it compiles the text. */
const MULTIPLY = `function (w, x) {
  let sum = 0;
  for (let k = 0; k < this.constants.cols; k++) {
    sum += w[this.thread.x][k] * x[this.thread.y][k];
  }
  return sum;
}`;

/** ms a matmul, the weights on the GPU and the results left there until the last. */
async function gpuJs(rows: number) {
  const { GPU: Library } = globalThis as unknown as { readonly GPU: new (options: unknown) => GpuJs };
  const gpu = new Library({ mode: "webgpu" });
  const weights = await gpu.createKernel(
    "function () { return ((this.thread.y * 7 + this.thread.x * 3) % 16 - 8) / 64; }",
    { output: [COLS, OUTPUTS], pipeline: true },
  )();
  const multiply = gpu.createKernel(MULTIPLY, { output: [OUTPUTS, rows], pipeline: true, constants: { cols: COLS } });
  const x = Array.from({ length: rows }, (_, m) => Float32Array.from({ length: COLS }, (_, k) => ((m + k) % 5) - 2));
  check(await (await multiply(weights, x)).toArray(), x);
  const samples: number[] = [];
  for (let i = 0; i < REPETITIONS; i++) {
    const start = performance.now();
    let last = await multiply(weights, x);
    for (let copy = 1; copy < COPIES; copy++) last = await multiply(weights, x);
    await last.toArray();
    samples.push((performance.now() - start) / COPIES);
  }
  return { gpuJsMs: median(samples) };
}

/** Some of the outputs, against the same sum here. */
function check(got: readonly (readonly number[])[], x: readonly Float32Array[]): void {
  for (let n = 0; n < OUTPUTS; n += 61) {
    const want = x[0]?.reduce((sum, v, k) => sum + (v * (((n * 7 + k * 3) % 16) - 8)) / 64, 0) ?? Number.NaN;
    const value = got[0]?.[n] ?? Number.NaN;
    if (!(Math.abs(value - want) < 1e-3)) throw new RangeError(`gpu.js: output ${n} is ${value}, expected ${want}`);
  }
}

Object.assign(globalThis, { measureIngle: ingle, measureGpuJs: gpuJs });
