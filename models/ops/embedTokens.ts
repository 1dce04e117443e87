/** Embedding rows into the residual stream. */
import type { Slot } from "../../device/arena.ts";
import { embed } from "../../kernels/embed.ts";
import { scaleTypeCode } from "../../kernels/formats/group_scales.ts";
import { BLOCK_ROWS, groupCount, paramWords, runCount } from "../../kernels/formats/layout.ts";
import { layouts } from "../../kernels/formats/layouts.ts";
import { ROW } from "../../kernels/fragments/batch.ts";
import { NONE } from "../../kernels/kernel.ts";
import type { Matrix } from "../matrix.ts";
import { type Activation, type Norm, newActivation, type Residual, type Step } from "../step.ts";
import { throughNorm } from "./norm.ts";

/** Rows of the embedding matrix, those of learned positions added where there are some, and what the first norm needs: (rows, hidden_size). */
export function embedTokens(
  step: Step,
  tokens: Matrix,
  next: Norm | null,
  { multiplier, positions }: { readonly multiplier: number; readonly positions: Matrix | undefined },
): Residual {
  const z = newActivation(step, step.rows, tokens.cols, "z");
  const y = step.recorder.slot(z.shape.sums * 4, "residual");
  const fused = next?.kind === "rms" ? next : null;
  gather(step, tokens, { y, z }, { multiplier, norm: fused, id: ROW.token });
  if (positions !== undefined) gather(step, positions, { y, z }, { multiplier: 1, norm: fused, id: ROW.position });
  return throughNorm(step, { y, z, eps: fused?.eps ?? null }, next);
}

/** The rows of `matrix` that a word of each row's record names; those of positions are added to y. */
function gather(
  step: Step,
  matrix: Matrix,
  { y, z }: { readonly y: Slot; readonly z: Activation },
  { multiplier, norm, id }: { readonly multiplier: number; readonly norm: Norm | null; readonly id: number },
): void {
  const { cols, group, layout } = matrix;
  if (matrix.order !== undefined)
    throw new RangeError(`${matrix.name}: columns sorted by group (act-order), supported: embeddings without`);
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
      id_word: id,
      add: id === ROW.token ? 0 : 1,
      norm_weight: norm?.weight.offset ?? NONE,
      stride: z.shape.stride,
      runs: z.shape.runs,
      z_sums: z.shape.sums,
      z_squares: z.shape.squares,
    };
    const buffers = { words, scales: scales ?? words, aux: step.aux, batch: step.batch, y, z: z.slot };
    embed(layout).launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "embed_tokens");
  }
}
