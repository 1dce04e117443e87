/** Cases of values of latents: against f64, several rows at once with the bits of one. */
import { activation, columns, padding, product, scalesTitle, untouched } from "../caseData.ts";
import { BLOCK_ROWS, paddedRows } from "../formats/layout.ts";
import { activationShape } from "../fragments/activation.ts";
import { dotParams } from "../fragments/matmul.ts";
import { type Case, Random } from "../testbed.ts";
import { latentValue } from "./latent_value.ts";
import { byHead, everyWay, type LatentShape, SUM_LIMIT, uploaded } from "./latentData.ts";

/** Values of a step, by each number of rows at once. */
export function latentValueCase(s: LatentShape): Case {
  const { heads, latent, valueDim, layout } = s;
  const rows = s.counts.reduce((a, b) => a + b, 0);
  return {
    kernel: "latent_value",
    title: `latent_value ${scalesTitle({ ...s, scaleType: "f16" })} heads=${heads} ${latent} to ${valueDim} rows=${rows} seed=${s.seed}`,
    async run(bed) {
      const random = new Random(s.seed);
      const values = byHead(s, random, valueDim);
      const x = random.floats(rows * heads * latent);
      const act = activation(rows * heads, latent, x);
      const out = activationShape(rows, heads * valueDim);
      const buffers = { ...uploaded(bed, values), x: bed.buffer(act.data) };
      const head_blocks = paddedRows(valueDim) / BLOCK_ROWS;
      const params = {
        ...dotParams(values.stored, act.shape, true),
        rows,
        heads,
        first_head: 0,
        head_blocks,
        value_dim: valueDim,
        out_stride: out.stride,
      };
      const { got, same } = await everyWay(s, async (m) => {
        const result = bed.output(out.bytes / 4);
        const grid = [heads * head_blocks, Math.ceil(rows / m), 1] as const;
        await bed.submit((recorder) =>
          latentValue(layout, m).launch(recorder, { buffers: { ...buffers, out: result }, params, grid }),
        );
        return bed.f32(result);
      });
      const want = Float64Array.from({ length: rows * heads * valueDim });
      for (let row = 0; row < rows; row++)
        for (let h = 0; h < heads; h++) {
          const begin = h * paddedRows(valueDim) * latent;
          const w = values.matrix.values.subarray(begin, begin + valueDim * latent);
          const own = x.subarray((row * heads + h) * latent, (row * heads + h + 1) * latent);
          want.set(product(w, own, 1, latent, valueDim), (row * heads + h) * valueDim);
        }
      const { stride, cols } = out;
      return [
        { name: "values", got: columns(got, rows, stride, 0, cols), want, limit: SUM_LIMIT },
        padding(got, out),
        untouched(got, (i) => i < rows * stride),
        ...same,
      ];
    },
  };
}
