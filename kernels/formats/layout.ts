/**
 * The seam between weight layouts and the kernels that multiply by them: a layout decodes, a kernel reduces.
 *
 * A matrix (rows, cols) is stored in blocks of 32 rows, padded with zeros to whole blocks and to whole groups of 32
 * columns. Words lie as [rows/32][cols/32][run words][32]: a row's run of 32 columns takes `runWords` words; group
 * parameters as [rows/32][cols/group][planes][32]. So four neighbouring rows are one 128-bit load, whatever the layout.
 */

/** Rows a block: a lane may walk it as 8 lanes × 4 rows or 32 × 1 over the same bytes. */
export const BLOCK_ROWS = 32;
/** Columns are padded to whole runs of this; also the span of one stored activation sum. */
export const BLOCK_COLS = 32;

/** How a group's scale and bias are stored: two 16-bit halves of one word, or two planes of f32 words. */
export const SCALE_TYPES = ["f16", "bf16", "f32"] as const;
export type ScaleType = (typeof SCALE_TYPES)[number];

/** The layouts there are. */
export type LayoutName = "f32" | "f16" | "bf16" | "affine4" | "affine8";

/** What a kernel must know of one stored matrix besides its layout. */
export interface MatrixShape {
  readonly rows: number;
  readonly cols: number;
  /** Columns a scale; 32 where the layout has none. */
  readonly group: number;
  readonly scaleType: ScaleType;
}

/** Words and group parameters as stored. `scales` is empty where the layout has none. */
export interface PackedMatrix {
  readonly words: Uint32Array<ArrayBuffer>;
  readonly scales: Uint32Array<ArrayBuffer>;
}

/** How a decoded number becomes a weight: as it is, scale · q by group, or scale · q + bias by group. */
export type Scaling = "none" | "scale" | "affine";

/** Bits of a code: `bits` of them from bit `from` of the code lie at bit `bit` of word `word` of the run. */
export interface Field {
  readonly word: number;
  readonly bit: number;
  readonly bits: number;
  readonly from: number;
}

/** One layout: how a run of 32 columns of a row is read, in WGSL and on the CPU. */
export interface Layout {
  readonly name: LayoutName;
  /** u32 words that a row's run of 32 columns takes. */
  readonly runWords: number;
  readonly scaling: Scaling;
  /**
   * `fn eight(run: u32, step: u32) -> Eight`: columns 8 · step … 8 · step + 7 of a run and four rows, decoded but not
   * scaled. `run` indexes `words: array<vec4u>` at the run's first word; its next word is 8 vec4u further.
   */
  readonly eight: string;
  /** `fn code_at(run: u32, column: u32) -> f32`: one weight of a run, not scaled; `words: array<u32>`, a run's words 32 apart. */
  readonly codeAt: string;
  /** Where the code of a column of the run lies. */
  fields(column: number): readonly Field[];
  /** The number that a code stands for, not scaled. */
  value(code: number): number;
}

/** Four rows × eight columns: q3.y is column 3 of the second row. */
export const EIGHT = /* wgsl */ `
struct Eight { q0: vec4f, q1: vec4f, q2: vec4f, q3: vec4f, q4: vec4f, q5: vec4f, q6: vec4f, q7: vec4f }`;

/** The next multiple of `step` from `value` on. */
export const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;
export const paddedRows = (rows: number): number => roundUp(rows, BLOCK_ROWS);
export const paddedCols = (cols: number): number => roundUp(cols, BLOCK_COLS);
/** Runs of 32 columns a row. */
export const runCount = (cols: number): number => Math.ceil(cols / BLOCK_COLS);
/** u32 planes a group parameter takes. */
export const planes = (scaleType: ScaleType): number => (scaleType === "f32" ? 2 : 1);

/** Words that a matrix of this layout takes, padding included. */
export function wordCount({ runWords }: Layout, rows: number, cols: number): number {
  return paddedRows(rows) * runCount(cols) * runWords;
}

/** u32 group parameters that a matrix takes; 0 where the layout has none. */
export function scaleCount({ scaling }: Layout, { rows, cols, group, scaleType }: MatrixShape): number {
  return scaling !== "none" ? paddedRows(rows) * Math.ceil(cols / group) * planes(scaleType) : 0;
}

/** Where the first word of the run of (row, column) lies; its next one is BLOCK_ROWS further. */
export function runIndex({ runWords }: Layout, cols: number, row: number, column: number): number {
  const block = Math.floor(row / BLOCK_ROWS);
  const run = Math.floor(column / BLOCK_COLS);
  return (block * runCount(cols) + run) * runWords * BLOCK_ROWS + (row % BLOCK_ROWS);
}

/** Where the first plane of (row, group index) lies; the second is BLOCK_ROWS further. */
export function scaleIndex({ cols, group, scaleType }: MatrixShape, row: number, groupIndex: number): number {
  const count = planes(scaleType);
  const block = Math.floor(row / BLOCK_ROWS);
  return (block * Math.ceil(cols / group) + groupIndex) * count * BLOCK_ROWS + (row % BLOCK_ROWS);
}
