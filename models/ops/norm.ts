/** Norms that no matmul carries: LayerNorm before a block, and norms behind one. */
import { NONE } from "../../kernels/kernel.ts";
import { norm as normKernel } from "../../kernels/norm.ts";
import { type Activation, type Norm, newActivation, type Residual, type Step } from "../step.ts";

function paramsOf(norm: Norm, { shape }: Activation, x_stride: number, next: Norm | null) {
  return {
    cols: shape.cols,
    x_stride,
    centred: norm.kind === "layer" ? 1 : 0,
    eps: norm.eps,
    scale: norm.scale ?? 1,
    weight: norm.weight.offset,
    bias: norm.bias?.offset ?? NONE,
    next: next?.weight.offset ?? NONE,
    stride: shape.stride,
    runs: shape.runs,
    z_sums: shape.sums,
    z_squares: shape.squares,
  };
}

/** The residual stream through a norm, in a dispatch of its own; the stream stays as it is. */
export function normed(step: Step, { y, z: like }: Residual, norm: Norm): Residual {
  const z = newActivation(step, step.rows, like.shape.cols, "z");
  const params = paramsOf(norm, z, NONE, null);
  const buffers = { x: step.aux, aux: step.aux, y, z: z.slot };
  normKernel.launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "norm");
  return { y, z, eps: null };
}

/** What the matmul behind `next` reads: `x` as it is where the producer has taken care of the norm, else a dispatch more. */
export function throughNorm(step: Step, x: Residual, next: Norm | null): Residual {
  return next?.kind === "layer" ? normed(step, x, next) : x;
}

/** y += norm(x) in place for x (rows, stride), and what the matmul behind the next norm reads. */
export function addNormed(
  step: Step,
  x: { readonly slot: Residual["y"]; readonly stride: number },
  residual: Residual,
  norm: Norm,
  next: Norm | null,
): Residual {
  const z = newActivation(step, step.rows, residual.z.shape.cols, "z");
  const fused = next?.kind === "rms" ? next : null;
  const params = paramsOf(norm, z, x.stride / 4, fused);
  const buffers = { x: x.slot, aux: step.aux, y: residual.y, z: z.slot };
  normKernel.launch(step.recorder, { buffers, params, grid: [step.rows, 1, 1] }, "post_norm");
  return throughNorm(step, { y: residual.y, z, eps: fused?.eps ?? null }, next);
}
