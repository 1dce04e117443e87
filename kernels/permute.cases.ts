/** Cases of the permutation of columns: every value in its place, sums by runs, squares copied, every word equal. */
import { activation, fixedSums } from "./caseData.ts";
import { PERMUTE_RUNS, permute } from "./permute.ts";
import { type Case, Random } from "./testbed.ts";

function permuteCase(rows: number, cols: number, seed: number): Case {
  return {
    kernel: "permute",
    title: `permute rows=${rows} cols=${cols} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const { shape, data } = activation(rows, cols, random.floats(rows * cols), random.floats(rows * cols));
      const order = Uint32Array.from({ length: cols }, (_, i) => i);
      for (let i = cols - 1; i > 0; i--) {
        const j = random.below(i + 1);
        [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
      }
      const out = bed.output(shape.bytes / 4);
      await bed.submit((recorder) =>
        permute.launch(recorder, {
          buffers: { x: bed.buffer(data), order: bed.buffer(order), out },
          params: { cols, stride: shape.stride, runs: shape.runs, sums: shape.sums, squares: shape.squares },
          grid: [Math.ceil(shape.runs / PERMUTE_RUNS), rows, 1],
        }),
      );
      const values = new Float32Array(rows * shape.stride);
      for (let row = 0; row < rows; row++)
        order.forEach((from, to) => {
          values[row * shape.stride + to] = data[row * shape.stride + from] ?? Number.NaN;
        });
      const want = [...values, ...fixedSums(values), ...data.subarray(shape.squares)];
      return [{ name: "out", got: await bed.f32(out), want, limit: 0 }];
    },
  };
}

/** `count` random shapes; the first are one value, and rows wider than a workgroup. */
export function permuteCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 5003);
    const [rows, cols] = [[1, 1] as const, [3, 700] as const][i] ?? [1 + random.below(9), 1 + random.below(500)];
    return permuteCase(rows, cols, seed);
  });
}
