/** Activations of gated MLPs, in WGSL and on the CPU, by one number each. */

/** As `hidden_act` in config.json; the index is the kernels' param. */
export const ACTIVATIONS = ["silu", "gelu_pytorch_tanh", "relu"] as const;
export type Activation = (typeof ACTIVATIONS)[number];

/** The number by which params name an activation. */
export const activationCode = (activation: Activation): number => ACTIVATIONS.indexOf(activation);

/** `activate(v, kind)`. Arguments are clamped where a driver's exp or tanh leaves its range (tanh(±100) is NaN on one). */
export const ACTIVATE = /* wgsl */ `
fn activate(v: vec4f, kind: u32) -> vec4f {
  if (kind == 0u) { return v / (1.0 + exp(min(-v, vec4f(80.0)))); }
  if (kind == 1u) {
    let inner = 0.7978845608028654 * fma(0.044715 * v * v, v, v);
    return 0.5 * v * (1.0 + tanh(clamp(inner, vec4f(-15.0), vec4f(15.0))));
  }
  return max(v, vec4f());
}`;

/** The same in f64. */
export function activate(value: number, activation: Activation): number {
  switch (activation) {
    case "silu":
      return value / (1 + Math.exp(-value));
    case "gelu_pytorch_tanh":
      return 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3)));
    case "relu":
      return Math.max(value, 0);
  }
}
