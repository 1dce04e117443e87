/** Cases of the row picker: any rows in any order, some twice, every word equal. */
import { activation, PLAIN_SAMPLE, sampleWords } from "./caseData.ts";
import { activationShape } from "./fragments/activation.ts";
import { pickRows } from "./pick_rows.ts";
import { type Case, Random } from "./testbed.ts";

interface PickShape {
  readonly rows: number;
  readonly cols: number;
  readonly samples: number;
  readonly seed: number;
}

function pickRowsCase({ rows, cols, samples, seed }: PickShape): Case {
  return {
    kernel: "pick_rows",
    title: `pick_rows rows=${rows} cols=${cols} samples=${samples} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const { shape, data } = activation(rows, cols, random.floats(rows * cols), random.floats(rows * cols));
      const picked = Array.from({ length: samples }, () => random.below(rows));
      const out = activationShape(samples, cols);
      const result = bed.output(out.bytes / 4);
      const lead = random.below(40);
      const buffers = {
        x: bed.buffer(data),
        batch: bed.buffer(
          sampleWords(
            picked.map((row) => ({ ...PLAIN_SAMPLE, row })),
            lead,
          ),
        ),
        out: result,
      };
      const params = {
        samples: lead,
        stride: shape.stride,
        runs: shape.runs,
        x_sums: shape.sums,
        x_squares: shape.squares,
        out_sums: out.sums,
        out_squares: out.squares,
      };
      await bed.submit((recorder) => pickRows.launch(recorder, { buffers, params, grid: [samples, 1, 1] }));
      const rowsFrom = (start: number, width: number) =>
        picked.flatMap((row) => [...data.subarray(start + row * width, start + (row + 1) * width)]);
      const want = [
        ...rowsFrom(0, shape.stride),
        ...rowsFrom(shape.sums, shape.runs),
        ...rowsFrom(shape.squares, shape.runs),
      ];
      return [{ name: "out", got: await bed.f32(result), want, limit: 0 }];
    },
  };
}

/** `count` random shapes; the first ones are one row, and rows wider than a workgroup takes at once. */
export function pickRowsCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 6007);
    const [rows, cols] = [[1, 1] as const, [5, 2500] as const][i] ?? [1 + random.below(20), 1 + random.below(700)];
    return pickRowsCase({ rows, cols, samples: 1 + random.below(2 * rows), seed });
  });
}
