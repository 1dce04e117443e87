/**
 * Logits as a request's rules leave them, for the sampler to draw from.
 *
 *   biased  = logit + bias[v]
 *   seen[v] (in prompt or answer):  repeated = biased / r where biased > 0, else biased · r
 *   score   = repeated − frequency · count[v] − presence · (count[v] > 0)     count: in the answer so far
 *   score   = MASKED where v is not allowed, would complete a bad word, or would end the answer before its least length
 *
 * Source: transformers (SequenceBias, RepetitionPenalty, NoBadWords, MinNewTokensLength), vLLM (apply_penalties); docs/sampling.md.
 * Shapes: logits, scores (rows, stride) f32 · batch: records of samples (batch.ts) · lists: blocks of rules (rules.ts), each with
 * its sequence's tokens behind. Scores without MASKED lie within ±3e37. A row without rules is copied.
 *
 * How: a workgroup has CHUNK neighbouring ids of one row, marks them in workgroup memory while it walks the sequence's tokens and
 * the lists, then computes each. What is marked are counts and bits, so that no order of lanes shows. What grows with each token
 * are the sequence's tokens alone: a sample sees as many of them as its position says. Grid: (ceil(vocab / CHUNK), samples, 1).
 */
import { SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { kernel } from "./kernel.ts";
import { RULE } from "./rules.ts";

/** Ids that a workgroup takes: 4 KiB of marks and as much of biases. */
export const ADJUST_CHUNK = 1024;

/** Stands for −∞: the score of a token that must not be drawn. */
export const MASKED = -3e38;
/** Greatest size of every other score, so that the difference of two is an f32. */
export const MAX_SCORE = 3e37;

/** The kernel of this file. */
export const adjust = kernel({
  name: "adjust",
  reads: { logits: "f32", batch: "u32", lists: "u32" },
  writes: { scores: "f32" },
  params: { vocab: "u32", stride: "u32", samples: "u32" },
  workgroup: 256,
  code: /* wgsl */ `
const CHUNK = ${ADJUST_CHUNK}u;
/** Bits above a count. */
const IN_PROMPT = 0x80000000u;
const BANNED = 0x40000000u;
const COUNT = 0x3fffffffu;
var<workgroup> marks: array<atomic<u32>, CHUNK>;
var<workgroup> biases: array<f32, CHUNK>;

fn rule(block: u32, word: u32) -> u32 { return lists[block + word]; }
fn ban(id: u32, first: u32) { if (id - first < CHUNK) { atomicOr(&marks[id - first], BANNED); } }

/** Marks what the sequence's tokens and the lists say of ids first … first + CHUNK − 1. */
fn mark(block: u32, position: u32, first: u32, lane: u32) {
  let history = block + rule(block, ${RULE.history}u);
  if (rule(block, ${RULE.history}u) != NONE) {
    let prompt = rule(block, ${RULE.prompt}u);
    for (var i = lane; i < position; i += WG) {
      let id = lists[history + i] - first;
      if (id < CHUNK) {
        if (i < prompt) { atomicOr(&marks[id], IN_PROMPT); } else { atomicAdd(&marks[id], 1u); }
      }
    }
  }
  let pairs = block + rule(block, ${RULE.biases}u);
  for (var i = lane; i < rule(block, ${RULE.biasCount}u); i += WG) {
    let id = lists[pairs + 2u * i] - first;
    if (id < CHUNK) { biases[id] = bitcast<f32>(lists[pairs + 2u * i + 1u]); }
  }
  if (position < rule(block, ${RULE.stopsFrom}u)) {
    let stops = block + rule(block, ${RULE.stops}u);
    for (var i = lane; i < rule(block, ${RULE.stopCount}u); i += WG) { ban(lists[stops + i], first); }
  }
  let words = block + rule(block, ${RULE.words}u);
  for (var i = lane; i < rule(block, ${RULE.wordCount}u); i += WG) {
    let word = block + lists[words + 2u * i];
    let before = lists[words + 2u * i + 1u] - 1u;
    var same = before <= position;
    for (var k = 0u; same && k < before; k++) { same = lists[word + k] == lists[history + position - before + k]; }
    if (same) { ban(lists[word + before], first); }
  }
}
fn adjusted(logit: f32, bias: f32, marked: u32, block: u32) -> f32 {
  let r = bitcast<f32>(rule(block, ${RULE.repetition}u));
  let frequency = bitcast<f32>(rule(block, ${RULE.frequency}u));
  let presence = bitcast<f32>(rule(block, ${RULE.presence}u));
  let count = marked & COUNT;
  var score = logit + bias;
  if ((marked & ~BANNED) != 0u) { score = select(score * r, score / r, score > 0.0); }
  if (count > 0u) { score = fma(-frequency, f32(count), score) - presence; }
  return clamp(score, ${-MAX_SCORE}, ${MAX_SCORE});
}
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = wg.x * CHUNK;
  let base = wg.y * params.stride;
  let record = params.samples + wg.y * ${SAMPLE_WORDS}u;
  let block = batch[record + ${SAMPLE.rules}u];
  for (var i = lane; i < CHUNK; i += WG) {
    atomicStore(&marks[i], 0u);
    biases[i] = 0.0;
  }
  workgroupBarrier();
  if (block != NONE) { mark(block, batch[record + ${SAMPLE.position}u], first, lane); }
  workgroupBarrier();
  for (var i = lane; i < CHUNK && first + i < params.vocab; i += WG) {
    let id = first + i;
    var score = logits[base + id];
    if (block != NONE) {
      let marked = atomicLoad(&marks[i]);
      let mask = rule(block, ${RULE.allowed}u);
      var allowed = (marked & BANNED) == 0u;
      if (mask != NONE) { allowed = allowed && ((lists[block + mask + (id >> 5u)] >> (id & 31u)) & 1u) == 1u; }
      score = select(${MASKED}, adjusted(score, biases[i], marked, block), allowed);
    }
    scores[base + id] = score;
  }
}`,
});
