/**
 * Sums over a row of logits by one workgroup, each in a fixed tree: greatest logit, log-sum-exp, counts.
 *
 * A lane walks the vocabulary in steps of WG; lanes then add pairwise. One running f32 sum over 49,152 entries alone would
 * cost 2.6e-4 of the log-probability. Logits are compared as u32 keys, since compilers may flush denormals, drop the
 * sign of zero and assume that no NaN exists.
 */

/** Lanes of the kernels over logits. */
export const LOGIT_LANES = 256;

/** Declares the trees, `key_of` and `value_of`, and `greatest_key`, `log_sum` and `not_finite` of a row. */
export const LOGIT_SUMS = /* wgsl */ `
var<workgroup> lanes: array<f32, WG>;
var<workgroup> lane_words: array<u32, WG>;

fn tree_sum(lane: u32, value: f32) -> f32 {
  workgroupBarrier();
  lanes[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { lanes[lane] += lanes[lane + half]; }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&lanes[0]);
}
fn tree_count(lane: u32, value: u32) -> u32 {
  workgroupBarrier();
  lane_words[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { lane_words[lane] += lane_words[lane + half]; }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&lane_words[0]);
}
fn tree_max(lane: u32, value: u32) -> u32 {
  workgroupBarrier();
  lane_words[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) { lane_words[lane] = max(lane_words[lane], lane_words[lane + half]); }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&lane_words[0]);
}
fn tree_min(lane: u32, value: u32) -> u32 { return ~tree_max(lane, ~value); }

/** u32 in the order of the f32s, both zeros alike: negative ones flipped whole, others in the sign only. */
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let plain = select(bits, 0u, bits == 0x80000000u);
  return select(plain | 0x80000000u, ~plain, (plain & 0x80000000u) != 0u);
}
fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}
fn greatest_key(base: u32, lane: u32) -> u32 {
  var best = 0u;
  for (var i = lane; i < params.vocab; i += WG) { best = max(best, key_of(logits[base + i])); }
  return tree_max(lane, best);
}
/** log Σ exp(logit − best): without best, so that great logits keep the bits of a log-probability. */
fn log_sum(base: u32, lane: u32, best: f32) -> f32 {
  var sum = 0.0;
  for (var i = lane; i < params.vocab; i += WG) { sum += exp(max(logits[base + i] - best, -100.0)); }
  return log(tree_sum(lane, sum));
}
/** Whether a logit of the row is NaN or infinite: by its bits, since compilers may assume neither exists. */
fn not_finite(base: u32, lane: u32) -> bool {
  var found = 0u;
  for (var i = lane; i < params.vocab; i += WG) {
    found |= select(0u, 1u, (bitcast<u32>(logits[base + i]) & 0x7f800000u) == 0x7f800000u);
  }
  return tree_max(lane, found) > 0u;
}`;
