/** Cases of activations without a gate: each one, narrow and wide, at values where they bend and where they saturate. */
import { ACTIVATE_RUNS, activateRows as activateKernel } from "./activate.ts";
import { runSums } from "./caseData.ts";
import { ACTIVATIONS, activate, activationCode } from "./fragments/act.ts";
import { activationShape } from "./fragments/activation.ts";
import { type Case, type Comparison, Random } from "./testbed.ts";

const LIMIT = 1e-11; // exp, tanh and the fit of erfc

/** `count` cases, activations by turns. */
export function activateCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i): Case => {
    const seed = firstSeed + i;
    const random = new Random(seed * 3571);
    const kind = ACTIVATIONS[i % ACTIVATIONS.length] ?? "silu";
    const rows = 1 + random.below(5);
    const cols = random.pick([1, 31, 33, 80, 255, 300, 520]);
    const spread = random.pick([1, 1, 6, 300]);
    return {
      kernel: "activate",
      title: `activate ${kind} rows=${rows} cols=${cols} spread=${spread} seed=${seed}`,
      async run(bed) {
        const out = activationShape(rows, cols);
        const values = random.floats(rows * out.stride, spread);
        const x = Float32Array.from(values, (v, at) => (at % out.stride < cols ? v : 0));
        const result = bed.output(out.sums + rows * out.runs);
        const params = {
          activation: activationCode(kind),
          x_stride: out.stride / 4,
          stride: out.stride,
          runs: out.runs,
          sums: out.sums,
        };
        const grid = [Math.ceil(out.runs / ACTIVATE_RUNS), rows, 1] as const;
        const buffers = { x: bed.buffer(x), out: result };
        await bed.submit((recorder) => activateKernel.launch(recorder, { buffers, params, grid }));
        const got = await bed.f32(result);
        const want = Float64Array.from(x, (v) => activate(v, kind));
        return [
          { name: "out", got: got.subarray(0, out.sums), want, limit: LIMIT },
          { name: "sums", got: got.subarray(out.sums), want: runSums(want, rows, out.stride), limit: LIMIT },
        ] satisfies Comparison[];
      },
    };
  });
}
