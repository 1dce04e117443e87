/**
 * The cap on logits, in place.
 *
 *   logits[m, v] = cap · tanh(logits[m, v] / cap)
 *
 * Shapes: logits (rows, stride) f32. What is NaN or infinite stays as it is, for the sampler to find.
 * Source: Gemma Team 2024, "Gemma 2", §2; Bello et al. 2016, "Neural Combinatorial Optimization", §3.
 *
 * How: a lane a quad. Grid: (stride / 256, rows, 1).
 */
import { kernel } from "./kernel.ts";

/** f32s of a row that a workgroup takes. */
export const SOFTCAP_SPAN = 256;

/** The kernel of this file. */
export const softcap = kernel({
  name: "softcap",
  reads: {},
  writes: { logits: "vec4f" },
  params: {
    cap: "f32",
    /** In vec4f. */
    stride: "u32",
  },
  workgroup: SOFTCAP_SPAN / 4,
  code: /* wgsl */ `
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = wg.x * WG + lane;
  if (i >= params.stride) { return; }
  let at = wg.y * params.stride + i;
  let v = logits[at];
  let capped = params.cap * tanh(clamp(v / params.cap, vec4f(-15.0), vec4f(15.0)));
  logits[at] = select(capped, v, (bitcast<vec4u>(v) & vec4u(0x7f800000u)) == vec4u(0x7f800000u));
}`,
});
