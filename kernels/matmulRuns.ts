/** The three fused matmuls over given inputs, and a case of each. */
import { columns, runSums, untouched } from "./caseData.ts";
import { BLOCK_ROWS } from "./formats/layout.ts";
import { activate, activationCode } from "./fragments/act.ts";
import { activationShape } from "./fragments/activation.ts";
import { NONE } from "./kernel.ts";
import { launchRows } from "./launchRows.ts";
import { matmulResidual } from "./matmul_residual.ts";
import {
  ACTIVATED_LIMIT,
  gateUpInputs,
  limitOf,
  type MatmulInputs,
  type MatmulShape,
  matmulInputs,
  needsOf,
  ownSums,
  reference,
  residualInputs,
  residualStream,
  title,
  upload,
  walkOf,
} from "./matmulData.ts";
import { normGateUp } from "./norm_gate_up.ts";
import { normMatmul } from "./norm_matmul.ts";
import type { Case, Comparison, Testbed } from "./testbed.ts";

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
      const [gotY, gotZ] = [own(got.y), own(got.z)];
      return [
        { name: "y", got: gotY, want: wantY, limit },
        { name: "y of other shards", got: others(got.y), want: others(stream.y), limit: 0 },
        { name: "z", got: gotZ, want: wantZ, limit },
        // Of its own outputs: what cancels out in a sum would make their error look large.
        {
          name: "sums",
          got: ownRuns(got.z.subarray(z.sums, z.squares)),
          want: runSums(gotZ, z.rows, outputs),
          limit,
        },
        { name: "squares", got: ownRuns(got.z.subarray(z.squares)), want: runSums(gotY, z.rows, outputs, 2), limit },
        untouched(got.z, (i) => (i < z.sums ? i % z.stride >= from.lead : (i - z.sums) % runs >= leadRuns)),
      ] satisfies Comparison[];
    },
  };
}

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
      const outputs = columns(got, out.rows, out.stride, lead, cols);
      return [
        { name: "out", got: outputs, want, limit },
        { name: "sums", got: sums, want: runSums(outputs, out.rows, cols), limit },
        untouched(got, (i) =>
          i < out.sums ? i % out.stride >= lead : i < out.squares && (i - out.sums) % out.runs >= leadRuns,
        ),
      ];
    },
  };
}
