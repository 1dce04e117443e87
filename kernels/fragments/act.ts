/** Activations of MLPs, in WGSL and on the CPU, by one number each. */

/** Named as in transformers, one name a function; the index is the kernels' param. */
export const ACTIVATIONS = ["silu", "gelu_pytorch_tanh", "relu", "gelu", "relu2", "quick_gelu", "linear"] as const;
export type Activation = (typeof ACTIVATIONS)[number];

/** The number by which params name an activation. */
export const activationCode = (activation: Activation): number => ACTIVATIONS.indexOf(activation);

/**
 * `activate(v, kind)`. Arguments are clamped where a driver's exp or tanh leaves its range (tanh(±100) is NaN on one).
 *
 * WGSL has no erf: `erfc_of` is the Chebyshev fit of Press et al., "Numerical Recipes", 2nd ed., §6.2, off by 1.2e-7 of the value at most.
 */
export const ACTIVATE = /* wgsl */ `
/** erfc of what is not negative. */
fn erfc_of(z: vec4f) -> vec4f {
  let t = 1.0 / fma(vec4f(0.5), z, vec4f(1.0));
  var p = vec4f(0.17087277);
  p = fma(p, t, vec4f(-0.82215223));
  p = fma(p, t, vec4f(1.48851587));
  p = fma(p, t, vec4f(-1.13520398));
  p = fma(p, t, vec4f(0.27886807));
  p = fma(p, t, vec4f(-0.18628806));
  p = fma(p, t, vec4f(0.09678418));
  p = fma(p, t, vec4f(0.37409196));
  p = fma(p, t, vec4f(1.00002368));
  p = fma(p, t, vec4f(-1.26551223));
  return t * exp(max(p - z * z, vec4f(-80.0)));
}
fn activate(v: vec4f, kind: u32) -> vec4f {
  if (kind == 0u) { return v / (1.0 + exp(min(-v, vec4f(80.0)))); }
  if (kind == 1u) {
    let inner = 0.7978845608028654 * fma(0.044715 * v * v, v, v);
    return 0.5 * v * (1.0 + tanh(clamp(inner, vec4f(-15.0), vec4f(15.0))));
  }
  if (kind == 3u) {
    let tail = erfc_of(0.7071067811865476 * abs(v));
    return 0.5 * v * select(tail, 2.0 - tail, v >= vec4f());
  }
  if (kind == 5u) { return v / (1.0 + exp(min(-1.702 * v, vec4f(80.0)))); }
  if (kind == 6u) { return v; }
  let positive = max(v, vec4f());
  return select(positive, positive * positive, kind == 4u);
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
    case "gelu":
      return 0.5 * value * erfc(-value / Math.SQRT2);
    case "relu2":
      return Math.max(value, 0) ** 2;
    case "quick_gelu":
      return value / (1 + Math.exp(-1.702 * value));
    case "linear":
      return value;
  }
}

/** 1 − erf(x) in f64: its power series near 0, its continued fraction (Lentz, from the back) farther out. */
function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 60; n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = x;
  for (let n = 120; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / (fraction * Math.sqrt(Math.PI));
}
