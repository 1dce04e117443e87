/**
 * Philox 4x32-10: random numbers as a function of a key and a counter, so that a token's draw depends on nothing else.
 *
 * Source: Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
 */

/** What a draw is for: part of the counter, so that draws for two purposes are independent. */
export const PURPOSE = { sample: 0, draft: 1, accept: 2, residual: 3 } as const;

const ROUNDS = 10;
const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57] as const;
const WEYL = [0x9e3779b9, 0xbb67ae85] as const;

/** `philox(counter, key)` → four u32, and `unit_interval(u32)` in [0, 1) with 24 bits. */
export const PHILOX = /* wgsl */ `
fn mul_high(a: u32, b: u32) -> u32 {
  let a0 = a & 0xffffu; let a1 = a >> 16u; let b0 = b & 0xffffu; let b1 = b >> 16u;
  let mid = a1 * b0 + ((a0 * b0) >> 16u);
  return a1 * b1 + (mid >> 16u) + (((mid & 0xffffu) + a0 * b1) >> 16u);
}
fn philox(counter: vec4u, key: vec2u) -> vec4u {
  var c = counter;
  var k = key;
  for (var i = 0u; i < ${ROUNDS}u; i++) {
    c = vec4u(
      mul_high(${MULTIPLIERS[1]}u, c.z) ^ c.y ^ k.x, ${MULTIPLIERS[1]}u * c.z,
      mul_high(${MULTIPLIERS[0]}u, c.x) ^ c.w ^ k.y, ${MULTIPLIERS[0]}u * c.x);
    k += vec2u(${WEYL[0]}u, ${WEYL[1]}u);
  }
  return c;
}
fn unit_interval(bits: u32) -> f32 { return f32(bits >> 8u) * 0x1p-24; }`;

type Four = readonly [number, number, number, number];

/** The same on the CPU. */
export function philox(counter: Four, key: readonly [number, number]): Four {
  const high = (a: number, b: number) => Number((BigInt(a) * BigInt(b)) >> 32n);
  const low = (a: number, b: number) => Math.imul(a, b) >>> 0;
  let [[c0, c1, c2, c3], [k0, k1]] = [counter, key] as [Four, readonly [number, number]];
  for (let i = 0; i < ROUNDS; i++) {
    const [x, y] = MULTIPLIERS;
    [c0, c1, c2, c3] = [(high(y, c2) ^ c1 ^ k0) >>> 0, low(y, c2), (high(x, c0) ^ c3 ^ k1) >>> 0, low(x, c0)];
    [k0, k1] = [(k0 + WEYL[0]) >>> 0, (k1 + WEYL[1]) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** In [0, 1) with 24 bits. */
export const unitInterval = (bits: number): number => (bits >>> 8) * 2 ** -24;
