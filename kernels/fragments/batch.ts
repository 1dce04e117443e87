/** The batch as kernels read it: one u32 buffer, a record a row, a record a sample, then the block tables. */

/** Words of a row's record. */
export const ROW_WORDS = 8;
/** Word of each field in a row's record. */
export const ROW = {
  token: 0,
  /** Index of the token in its sequence. */
  position: 1,
  /** page · PAGE_TOKENS + offset where its K and V go in the first cache group; NONE for a padding row. */
  slot: 2,
  /** Keys it may see from the start of its sequence, its own included; 0 for a padding row. */
  length: 3,
  /** Row of the rope table. */
  rope: 4,
  /** Where the page ids of its sequence begin, in words of the batch; those of a second cache group in the word behind. */
  table: 5,
  /** Which of the states that a layer keeps is its sequence's; rows of one sequence follow each other. */
  state: 7,
} as const;

/** Words of a sample's record. */
export const SAMPLE_WORDS = 16;
/** Word of each field in a sample's record; f32s by their bits. */
export const SAMPLE = {
  /** Row of the batch whose logits it takes. */
  row: 0,
  temperature: 1,
  topK: 2,
  topP: 3,
  minP: 4,
  seedLow: 5,
  seedHigh: 6,
  choice: 7,
  /** Index in its sequence of the token that is drawn. */
  position: 8,
  /** Token whose log-probability is wanted, or NONE. */
  target: 9,
  typicalP: 10,
  /** Where its rules begin, in words of the lists (rules.ts), or NONE. */
  rules: 11,
  /** What its random number is for (philox.ts). */
  purpose: 12,
  /** Row of the draft's scores that `target` was drawn from, or NONE. */
  drafted: 13,
  /** Where the ids are with which its answer ends, in words of the batch, behind its block table; and how many they are. */
  stops: 14,
  stopCount: 15,
} as const;

/** Tokens a page. */
export const PAGE_TOKENS = 16;
/** Keys whose maximum is taken at once; blocks lie at absolute positions. */
export const KEY_BLOCK = 32;
/** Keys that one workgroup takes where attention is split; a split is folded like a block of blocks. */
export const KEY_SPLIT = 256;
/** The next power of two; 0 of 0. */
export const powerOfTwo = (count: number): number => (count <= 1 ? count : 2 ** Math.ceil(Math.log2(count)));
/** Splits that steps have room for whose longest sequence has so many keys: 0 where one is enough, whose result is final, else a power of two. */
export function splitsOf(longest: number): number {
  const splits = Math.ceil(longest / KEY_SPLIT);
  return splits > 1 ? powerOfTwo(splits) : 0;
}
/**
 * Declares, over `batch` and `params.rows`, who a row belongs to: `row_word`, `state_of` (NONE for a row that only fills the batch up),
 * `goes_on` (whether the row before is of the same sequence) and `end_of`, the row behind its sequence's last.
 */
export const SEQUENCE_ROWS = /* wgsl */ `
fn row_word(row: u32, word: u32) -> u32 { return batch[row * ${ROW_WORDS}u + word]; }
fn state_of(row: u32) -> u32 {
  if (row_word(row, ${ROW.slot}u) == NONE) { return NONE; }
  return row_word(row, ${ROW.state}u);
}
fn goes_on(row: u32) -> bool { return row > 0u && state_of(row - 1u) == state_of(row); }
fn end_of(row: u32) -> u32 {
  var end = row + 1u;
  while (end < params.rows && state_of(end) == state_of(row)) { end++; }
  return end;
}`;

/** Lengths of a head's vector that attention kernels have workgroup memory for: clearing it costs time, so a short one has less. */
export const HEAD_DIMS = [64, 128, 256] as const;
export type HeadDim = (typeof HEAD_DIMS)[number];

/** The kernel for a head_dim. Throws RangeError above the largest. */
export function headDimFor(headDim: number): HeadDim {
  const fits = HEAD_DIMS.find((most) => headDim <= most);
  if (fits === undefined) throw new RangeError(`head_dim: is ${headDim}, expected at most ${HEAD_DIMS.at(-1)}`);
  return fits;
}

/** Longest value of latent attention, and lengths of its keys that its kernel has room for: those of DeepSeek's models, and of small ones. */
export const MAX_LATENT = 512;
export const LATENT_WIDTHS = [128, 576] as const;
export type LatentWidth = (typeof LATENT_WIDTHS)[number];

/** The kernel for keys of a latent and what is turned. Throws RangeError above the largest. */
export function latentWidthFor(latent: number, turned: number): LatentWidth {
  const fits = LATENT_WIDTHS.find((most) => latent <= MAX_LATENT && latent + turned <= most);
  if (fits === undefined) {
    const most = `${MAX_LATENT}, with what is turned ${LATENT_WIDTHS.at(-1)}`;
    throw new RangeError(`latent: is ${latent}, with what is turned ${latent + turned}, expected at most ${most}`);
  }
  return fits;
}
