/** Gate and up of an expert, made one: the activations of gated MLPs, and the clamped one of gpt_oss. */
import { ACTIVATE, type Activation, activate, activationCode } from "../fragments/act.ts";

/** act(gate) · up, or clamped swiglu: (min(gate, limit) · σ(alpha · gate)) · (clamp(up, ±limit) + 1). */
export type Gated =
  | { readonly activation: Activation }
  | { readonly activation: "clamped swiglu"; readonly alpha: number; readonly limit: number };

/** Params of `gated_pair`. */
export const GATED_PARAMS = { activation: "u32", alpha: "f32", limit: "f32" } as const;

const CLAMPED = 100; // above the numbers of plain activations

/** GATED_PARAMS of an activation. */
export function gatedParams(gated: Gated) {
  return gated.activation === "clamped swiglu"
    ? { activation: CLAMPED, alpha: gated.alpha, limit: gated.limit }
    : { activation: activationCode(gated.activation), alpha: 0, limit: 0 };
}

/** `gated_pair(gate, up)`. */
export const GATED_PAIR = /* wgsl */ `${ACTIVATE}
fn gated_pair(gate: vec4f, up: vec4f) -> vec4f {
  if (params.activation != ${CLAMPED}u) { return activate(gate, params.activation) * up; }
  let g = min(gate, vec4f(params.limit));
  let u = clamp(up, vec4f(-params.limit), vec4f(params.limit));
  return (g / (1.0 + exp(min(-params.alpha * g, vec4f(80.0))))) * (u + 1.0);
}`;

/** The same in f64. */
export function gatedPair(gate: number, up: number, gated: Gated): number {
  if (gated.activation !== "clamped swiglu") return activate(gate, gated.activation) * up;
  const { alpha, limit } = gated;
  const g = Math.min(gate, limit);
  return (g / (1 + Math.exp(-alpha * g))) * (Math.min(Math.max(up, -limit), limit) + 1);
}
