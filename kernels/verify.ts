/**
 * Verification of proposals that a draft drew: each is kept, or another token is drawn, so that what comes out is distributed as if the
 * target had drawn it.
 *
 *   keep d ~ q   where u · q(d) < p(d);   else draw from   max(p(v) − q(v), 0) / Σ max(p − q, 0)
 *
 * Source: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen et al. 2023. p and q are what the
 * sampler draws from, after rules, temperature and every cut: of the target's scores, and of the draft's, by the same sample's settings.
 * Shapes: logits, scores (rows, stride) f32 as the sampler's · drafted (rows, draft_stride) f32: the scores that proposals were drawn
 * from · batch: records of samples, of which `target` is the proposal and `drafted` its row, or NONE · out (samples, 2) u32: as
 * the sampler left it, and still so where nothing is to be verified. Where p and q are one but for their rounding, it is left too.
 *
 * How: one workgroup a sample; thresholds of both rows are found as the sampler finds them, one after the other. Two Philox numbers:
 * by purpose accept and residual. Grid: (samples, 1, 1).
 */
import { MASKED } from "./adjust.ts";
import { SAMPLE } from "./fragments/batch.ts";
import { inverted, KEPT } from "./fragments/kept.ts";
import { LOGIT_LANES, LOGIT_SUMS } from "./fragments/logits.ts";
import { PHILOX, PURPOSE } from "./fragments/philox.ts";
import { kernel } from "./kernel.ts";

const EXCESS = inverted("pick_excess", "p: Side, q: Side", "max(share_of(p, i) - share_of(q, i), 0.0)");

export const verify = kernel({
  name: "verify",
  reads: { logits: "f32", scores: "f32", drafted: "f32", batch: "u32" },
  writes: { out: "u32" },
  params: { vocab: "u32", stride: "u32", samples: "u32", draft_vocab: "u32", draft_stride: "u32" },
  workgroup: LOGIT_LANES,
  code: /* wgsl */ `${LOGIT_SUMS}${PHILOX}${KEPT}
/** A distribution: what is kept of a row, and the weight of all of it. */
struct Side { base: u32, drafts: bool, kept: Kept, mass: f32 }
var<private> of_draft: bool;
fn score(base: u32, i: u32) -> f32 {
  if (!of_draft) { return scores[base + i]; }
  if (i >= params.draft_vocab) { return ${MASKED}; }
  return drafted[base + i];
}
fn share_of(side: Side, i: u32) -> f32 {
  of_draft = side.drafts;
  return weight(score(side.base, i), side.kept) / side.mass;
}
${EXCESS}
fn uniform_of(s: u32, purpose: u32) -> f32 {
  let random = philox(
    vec4u(field(s, ${SAMPLE.position}u), field(s, ${SAMPLE.choice}u), purpose, 0u),
    vec2u(field(s, ${SAMPLE.seedLow}u), field(s, ${SAMPLE.seedHigh}u)));
  return unit_interval(random.x);
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let s = wg.x;
  let at = field(s, ${SAMPLE.drafted}u);
  let proposal = field(s, ${SAMPLE.target}u);
  if (at == NONE || proposal >= params.vocab) { return; }
  let row = read_row(s * params.stride, lane);
  if (row.best == BROKEN) { return; }
  let scale = 1.0 / clamp(bitcast<f32>(field(s, ${SAMPLE.temperature}u)), 1e-30, 1e30);
  var sides: array<Side, 2>;
  for (var n = 0u; n < 2u; n++) {
    of_draft = n == 1u;
    let base = select(s * params.stride, at * params.draft_stride, n == 1u);
    let best = best_score(base, lane);
    if (value_of(best.x) <= ${MASKED / 2}) { return; }
    let kept = keep(s, base, lane, best, scale);
    var sum = 0.0;
    for (var i = lane; i < params.vocab; i += WG) { sum += weight(score(base, i), kept); }
    sides[n] = Side(base, n == 1u, kept, tree(lane, sum, 0u).sum);
  }
  let p = sides[0];
  let q = sides[1];
  let refused = uniform_of(s, ${PURPOSE.accept}u) * share_of(q, proposal) >= share_of(p, proposal);
  var id = proposal;
  if (tree(lane, 0.0, u32(refused)).most == 1u) {
    id = pick_excess(lane, uniform_of(s, ${PURPOSE.residual}u), p, q);
  }
  if (lane == 0u && id != NONE) {
    out[2u * s] = id;
    out[2u * s + 1u] = bitcast<u32>((logits[s * params.stride + id] - value_of(row.best)) - row.log_sum);
  }
}`,
});
