/** Cases of rows without room between as an activation. */
import { activation, untouched } from "./caseData.ts";
import { PAD_RUNS, padRows } from "./pad_rows.ts";
import { type Case, Random } from "./testbed.ts";

/** Random rows. */
export function padRowsCase(rows: number, cols: number, seed: number): Case {
  return {
    kernel: "pad_rows",
    title: `pad_rows rows=${rows} cols=${cols} seed=${seed}`,
    async run(bed) {
      const values = new Random(seed).floats(rows * cols);
      const { shape, data } = activation(rows, cols, values);
      const out = bed.output(shape.bytes / 4);
      const { stride, runs, sums } = shape;
      await bed.submit((recorder) =>
        padRows.launch(recorder, {
          buffers: { x: bed.buffer(values), out },
          params: { cols, stride, runs, sums },
          grid: [Math.ceil(runs / PAD_RUNS), rows, 1],
        }),
      );
      const got = await bed.f32(out);
      return [
        { name: "out", got: got.subarray(0, shape.squares), want: data.subarray(0, shape.squares), limit: 0 },
        untouched(got, (i) => i < shape.squares),
      ];
    },
  };
}
