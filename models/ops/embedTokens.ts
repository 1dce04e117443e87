/** Embedding rows into the residual stream. */
import { embed } from "../../kernels/embed.ts";
import { scaleTypeCode } from "../../kernels/formats/group_scales.ts";
import { BLOCK_ROWS, groupCount, paramWords, runCount } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { NONE } from "../../kernels/kernel.ts";
import type { Matrix } from "../matrix.ts";
import { type Norm, newActivation, type Residual, type Step } from "../step.ts";

/** Rows of the embedding matrix, and what the first norm needs: (rows, hidden_size). */
export function embedTokens(step: Step, matrix: Matrix, next: Norm | null, multiplier = 1): Residual {
  const z = newActivation(step, step.rows, matrix.cols, "z");
  const y = step.recorder.slot(z.shape.sums * 4, "residual");
  const { cols, group, layout } = matrix;
  for (const { words, scales, firstBlock, blocks } of matrix.shards) {
    const params = {
      row_runs: runCount(cols),
      groups: groupCount(matrix),
      group_cols: group,
      scale_type: scaleTypeCode(layouts[layout], matrix),
      param_words: paramWords(layouts[layout], matrix),
      table: matrix.tableAt ?? 0,
      first_row: firstBlock * BLOCK_ROWS,
      end_row: (firstBlock + blocks) * BLOCK_ROWS,
      multiplier,
      norm_weight: next?.weight.offset ?? NONE,
      stride: z.shape.stride,
      runs: z.shape.runs,
      z_sums: z.shape.sums,
      z_squares: z.shape.squares,
    };
    const buffers = { words, scales: scales ?? words, aux: step.aux, batch: step.batch, y, z: z.slot };
    embed(layout).launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "embed_tokens");
  }
  return { y, z, eps: next?.eps ?? null };
}
