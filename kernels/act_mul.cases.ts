/** Cases of activation and product where gate and up come from two matmuls, against f64. */
import { ACT_MUL_RUNS, actMul } from "./act_mul.ts";
import { runSums } from "./caseData.ts";
import { paddedRows } from "./formats/layout.ts";
import { ACTIVATIONS, type Activation, activate, activationCode } from "./fragments/act.ts";
import { activationShape } from "./fragments/activation.ts";
import { type Case, Random } from "./testbed.ts";

const LIMIT = 1e-9; // exp and tanh of drivers are good to about 1e-5

function actMulCase(activation: Activation, rows: number, cols: number, seed: number): Case {
  return {
    kernel: "act_mul",
    title: `act_mul ${activation} rows=${rows} cols=${cols} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const up = paddedRows(cols);
      const x = random.floats(rows * 2 * up, 3);
      const shape = activationShape(rows, up);
      const out = bed.output(shape.squares);
      const params = {
        activation: activationCode(activation),
        x_stride: (2 * up) / 4,
        up: up / 4,
        out_stride: shape.stride,
        out_runs: shape.runs,
        out_sums: shape.sums,
      };
      const grid = [Math.ceil(shape.runs / ACT_MUL_RUNS), rows, 1] as const;
      await bed.submit((recorder) => actMul.launch(recorder, { buffers: { x: bed.buffer(x), out }, params, grid }));
      const want = Float64Array.from({ length: rows * up }, (_, i) => {
        const at = Math.floor(i / up) * 2 * up + (i % up);
        return activate(x[at] ?? Number.NaN, activation) * (x[at + up] ?? Number.NaN);
      });
      const got = await bed.f32(out);
      return [
        { name: "out", got: got.subarray(0, shape.sums), want, limit: LIMIT },
        { name: "sums", got: got.subarray(shape.sums, shape.squares), want: runSums(want, rows, up), limit: LIMIT },
      ];
    },
  };
}

/** `count` random shapes, activations by turns. */
export function actMulCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 4001);
    const activation = ACTIVATIONS[i % ACTIVATIONS.length] ?? "silu";
    return actMulCase(activation, 1 + random.below(5), 1 + random.below(600), seed);
  });
}
