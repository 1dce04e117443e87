/** The shapes of a real model, SmolLM2-135M in 4 bits: every op of a step, and how often the step has it. */
import { MAX_ROWS } from "../engine/batch.ts";
import { attentionOp, sampleOp } from "./attentionOp.ts";
import { type MatmulSpec, matmulOps } from "./matmulOp.ts";
import type { PerfOp } from "./perfOp.ts";

/** Rows of x that steps of generation and of verification have. */
export const ROWS = [1, 2, 4, 8] as const;
/** Rows of a step of a prompt: the most that the engine computes at once. */
export const PROMPT_ROWS = MAX_ROWS;
const LAYERS = 30;
const VOCABULARY = 49_152;

const MATMULS: readonly (MatmulSpec & { readonly times: number })[] = [
  { name: "qkv_proj", kind: "project", layout: "affine4", outputs: 960, cols: 576, times: LAYERS },
  { name: "o_proj", kind: "addToResidual", layout: "affine4", outputs: 576, cols: 576, times: LAYERS },
  { name: "gate_up_proj", kind: "gateUp", layout: "affine4", outputs: 2 * 1536, cols: 576, times: LAYERS },
  { name: "down_proj", kind: "addToResidual", layout: "affine4", outputs: 576, cols: 1536, times: LAYERS },
  { name: "lm_head", kind: "project", layout: "affine8", outputs: VOCABULARY, cols: 576, times: 1 },
];

/** In the order of a step. */
export function realOps(): PerfOp[] {
  const heads = { heads: 9, kvHeads: 3, headDim: 64 };
  return [
    // Of a prompt only the last row reaches the head.
    ...MATMULS.flatMap((spec, i) => matmulOps(spec, spec.name === "lm_head" ? ROWS : [...ROWS, PROMPT_ROWS], i + 1)),
    ...[64, 1024, 4096].map((depth) => attentionOp({ ...heads, depth })),
    ...[
      { temperature: 0, topP: 1 },
      { temperature: 0.7, topP: 0.95 },
    ].map((settings) => sampleOp(VOCABULARY, settings)),
  ];
}

/** How often a step of the model has a matmul. */
export const timesInStep = (name: string): number => MATMULS.find((it) => it.name === name)?.times ?? 0;
