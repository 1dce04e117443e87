/**
 * The seam between weight layouts and the kernels that multiply by them: a layout decodes, a kernel reduces.
 *
 * A matrix (rows, cols) is stored in blocks of 32 rows, padded with zeros to whole blocks and to whole groups of 32
 * columns. Words lie as [rows/32][cols/per][32], where `per` weights of a row share a word; group parameters as
 * [rows/32][cols/group][planes][32]. So four neighbouring rows are one 128-bit load, whatever the layout.
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

/** One layout: how a word is read, in WGSL and on the CPU. */
export interface Layout {
  readonly name: LayoutName;
  /** Weights of a row in one word. */
  readonly weightsPerWord: number;
  /** Whether w = scale · q + bias by group; otherwise the decoded number is the weight. */
  readonly grouped: boolean;
  /**
   * `fn eight(i: u32) -> Eight`: columns 8s … 8s+7 of four rows, decoded but not scaled, where i indexes
   * `words: array<vec4u>` at the first word of step s. Words of later columns are 8 vec4u apart.
   */
  readonly eight: string;
  /** `fn code_at(word: u32, column: u32) -> f32`: one weight from its word, not scaled. */
  readonly codeAt: string;
  /** The weight, not scaled, from its word on the CPU. */
  decode(word: number, column: number): number;
}

/** Four rows × eight columns: q3.y is column 3 of the second row. */
export const EIGHT = /* wgsl */ `
struct Eight { q0: vec4f, q1: vec4f, q2: vec4f, q3: vec4f, q4: vec4f, q5: vec4f, q6: vec4f, q7: vec4f }`;

/** The next multiple of `step` from `value` on. */
export const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;
export const paddedRows = (rows: number): number => roundUp(rows, BLOCK_ROWS);
export const paddedCols = (cols: number): number => roundUp(cols, BLOCK_COLS);
/** u32 planes a group parameter takes. */
export const planes = (scaleType: ScaleType): number => (scaleType === "f32" ? 2 : 1);

/** Words that a matrix of this layout takes, padding included. */
export function wordCount({ weightsPerWord }: Layout, rows: number, cols: number): number {
  return (paddedRows(rows) * paddedCols(cols)) / weightsPerWord;
}

/** u32 group parameters that a matrix takes; 0 where the layout has none. */
export function scaleCount({ grouped }: Layout, { rows, cols, group, scaleType }: MatrixShape): number {
  return grouped ? paddedRows(rows) * Math.ceil(cols / group) * planes(scaleType) : 0;
}

/** Where the word of (row, column) lies. */
export function wordIndex({ weightsPerWord }: Layout, cols: number, row: number, column: number): number {
  const perRow = paddedCols(cols) / weightsPerWord;
  const block = Math.floor(row / BLOCK_ROWS);
  return (block * perRow + Math.floor(column / weightsPerWord)) * BLOCK_ROWS + (row % BLOCK_ROWS);
}

/** Where the first plane of (row, group index) lies; the second is BLOCK_ROWS further. */
export function scaleIndex({ cols, group, scaleType }: MatrixShape, row: number, groupIndex: number): number {
  const count = planes(scaleType);
  const block = Math.floor(row / BLOCK_ROWS);
  return (block * Math.ceil(cols / group) + groupIndex) * count * BLOCK_ROWS + (row % BLOCK_ROWS);
}
