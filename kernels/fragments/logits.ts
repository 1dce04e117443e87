/**
 * Sums over a row of logits by one workgroup, each in a fixed tree: greatest logit, log-sum-exp, counts.
 *
 * A lane walks the vocabulary in steps of WG; lanes then add pairwise. One running f32 sum over 49,152 entries alone would
 * cost 2.6e-4 of the log-probability. Logits are compared as u32 keys, since compilers may flush denormals, drop the
 * sign of zero and assume that no NaN exists.
 */

/** Lanes of the kernels over logits. */
export const LOGIT_LANES = 256;

/**
 * Declares `tree`, `read_row` (greatest logit, its first place, log-sum-exp, whether all is finite), `key_of` and `value_of`.
 * Places with barriers are what software adapters compile slowly, so one tree serves a sum and a maximum.
 */
export const LOGIT_SUMS = /* wgsl */ `
const BROKEN = 0xffffffffu; // no finite logit has this key
var<workgroup> sums: array<f32, WG>;
var<workgroup> mosts: array<u32, WG>;
struct Tree { sum: f32, most: u32 }
struct Row { best: u32, first: u32, log_sum: f32 }

/** The sum of \`add\` and the maximum of \`most\` over the lanes; every lane gets both. */
fn tree(lane: u32, add: f32, most: u32) -> Tree {
  workgroupBarrier();
  sums[lane] = add;
  mosts[lane] = most;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      sums[lane] += sums[lane + half];
      mosts[lane] = max(mosts[lane], mosts[lane + half]);
    }
    workgroupBarrier();
  }
  return Tree(workgroupUniformLoad(&sums[0]), workgroupUniformLoad(&mosts[0]));
}
/** u32 in the order of the f32s, both zeros alike: negative ones flipped whole, others in the sign only. */
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let plain = select(bits, 0u, bits == 0x80000000u);
  return select(plain | 0x80000000u, ~plain, (plain & 0x80000000u) != 0u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}
/** log Σ exp(logit − best) is without best, so that great logits keep the bits of a log-probability. NaN is seen by its bits. */
fn read_row(base: u32, lane: u32) -> Row {
  var most = 0u;
  for (var i = lane; i < params.vocab; i += WG) {
    let v = logits[base + i];
    most = max(most, select(key_of(v), BROKEN, (bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u));
  }
  let best = tree(lane, 0.0, most).most;
  if (best == BROKEN) { return Row(BROKEN, 0u, 0.0); }
  var sum = 0.0;
  var place = 0u;
  for (var i = lane; i < params.vocab; i += WG) {
    let v = logits[base + i];
    sum += exp(max(v - value_of(best), -100.0));
    if (key_of(v) == best) { place = max(place, ~i); }
  }
  let all = tree(lane, sum, place);
  return Row(best, ~all.most, log(all.sum));
}`;
