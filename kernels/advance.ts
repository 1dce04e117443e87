/**
 * What the next step of a free run computes, from what this one drew: ids need not come to the CPU and back.
 *
 *   row:    token = drawn id;   position, length and rope row one more;   slot = page of the new position · PAGE_TOKENS + offset
 *   sample: position one more
 *   A row whose id ends its answer, or is none, or that has no page left, fills the batch up from then on: no slot, no keys.
 *
 * Shapes: drawn (rows, 2) u32: id, bits of the log-probability (sample.ts) · batch: the records of a step in which every row is its
 * sequence's newest, and the one that its sample is drawn from (fragments/batch.ts). Source: ours.
 *
 * How: a lane a row, which reads its sequence's block table and stop ids and writes two records, its own. Nobody else's is read, so no
 * barrier is needed. Its stop ids lie right behind its block table, so that a position without a page is seen.
 * Grid: (ceil(rows / WG), 1, 1).
 */
import { PAGE_TOKENS, ROW, ROW_WORDS, SAMPLE, SAMPLE_WORDS } from "./fragments/batch.ts";
import { kernel } from "./kernel.ts";
import { NO_TOKEN } from "./sample.ts";

/** Rows that a workgroup takes: as many as a step has at most. */
export const ADVANCE_ROWS = 64;

/** The kernel of this file. */
export const advance = kernel({
  name: "advance",
  reads: { drawn: "u32" },
  writes: { batch: "u32" },
  params: { rows: "u32", samples: "u32" },
  workgroup: ADVANCE_ROWS,
  code: /* wgsl */ `
fn ends(id: u32, record: u32) -> bool {
  if (id >= ${NO_TOKEN}u) { return true; }
  let stops = batch[record + ${SAMPLE.stops}u];
  for (var i = 0u; i < batch[record + ${SAMPLE.stopCount}u]; i++) {
    if (batch[stops + i] == id) { return true; }
  }
  return false;
}
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= params.rows) { return; }
  let row = at.x * ${ROW_WORDS}u;
  let record = params.samples + at.x * ${SAMPLE_WORDS}u;
  if (batch[row + ${ROW.slot}u] == NONE) { return; }
  let id = drawn[2u * at.x];
  let position = batch[row + ${ROW.position}u] + 1u;
  let page = batch[row + ${ROW.table}u] + position / ${PAGE_TOKENS}u;
  if (ends(id, record) || page >= batch[record + ${SAMPLE.stops}u]) {
    batch[row + ${ROW.slot}u] = NONE;
    batch[row + ${ROW.length}u] = 0u;
    return;
  }
  batch[row + ${ROW.token}u] = id;
  batch[row + ${ROW.position}u] = position;
  batch[row + ${ROW.slot}u] = batch[page] * ${PAGE_TOKENS}u + position % ${PAGE_TOKENS}u;
  batch[row + ${ROW.length}u] = position + 1u;
  batch[row + ${ROW.rope}u] = batch[row + ${ROW.rope}u] + 1u;
  batch[record + ${SAMPLE.position}u] = position + 1u;
}`,
});
