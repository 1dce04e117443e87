/**
 * The seam between weight layouts and the kernels that multiply by them: a layout decodes, a kernel reduces.
 *
 * A matrix (rows, cols) is stored in blocks of 32 rows, padded with zeros to whole blocks and to whole groups of 32
 * columns. Words lie as [rows/32][cols/32][run words][32]: a row's run of 32 columns takes `runWords` words; group
 * parameters as [rows/32][param words][32] (group_scales.ts). So four neighbouring rows are one 128-bit load, whatever the layout.
 */

/** Rows a block: a lane may walk it as 8 lanes × 4 rows or 32 × 1 over the same bytes. */
export const BLOCK_ROWS = 32;
/** Columns are padded to whole runs of this; also the span of one stored activation sum. */
export const BLOCK_COLS = 32;

/** How scales are stored that may have a bias beside them. */
export const SCALE_TYPES = ["f16", "bf16", "f32"] as const;
/** Scales of a byte: a power of two, or an e4m3 number that a factor of the whole row multiplies. */
export type ScaleType = (typeof SCALE_TYPES)[number] | "e8m0" | "e4m3";

/** Integer zeros in place of biases: w = scale · (q − (stored + add)), the stored one of 4 or 8 bits, or 0 where `bits` is 0. */
export interface Zeros {
  readonly bits: 0 | 4 | 8;
  readonly add: number;
}

/** The layouts there are. */
export type LayoutName = "f32" | "f16" | "bf16" | `affine${2 | 3 | 4 | 5 | 6 | 8}` | "e2m1" | "e4m3" | "codebook4";

/** What a kernel must know of one stored matrix besides its layout. */
export interface MatrixShape {
  readonly rows: number;
  readonly cols: number;
  /** Columns a scale; 32 where the layout has none. */
  readonly group: number;
  readonly scaleType: ScaleType;
  /** Of affine layouts; undefined: each group has a bias. */
  readonly zeros?: Zeros | undefined;
  /** Whether the 32 rows of a block have one f32 scale a group, which is stored once. Only of layouts without an offset. */
  readonly sharedRows?: true | undefined;
  /** Of codebook4: the 16 numbers. */
  readonly table?: Float32Array | undefined;
}

/** Words and group parameters as stored. `scales` is empty where the layout has none. */
export interface PackedMatrix {
  readonly words: Uint32Array<ArrayBuffer>;
  readonly scales: Uint32Array<ArrayBuffer>;
}

/** How a decoded number becomes a weight: as it is, scale · q by group, or scale · q + bias by group. */
export type Scaling = "none" | "scale" | "affine";

/** The same as a layout's `eight`, four columns at a time, for kernels that are short of registers. */
export interface Halves {
  /**
   * WGSL. Of scaled layouts `fn codes(run: u32, step: u32) -> Codes`, whose `low` and `high` are the halves; of others
   * `fn half_of(run: u32, half: u32) -> Half`, whose halves are whole words.
   */
  readonly code: string;
  /** A WGSL expression of `half`: its column b = 0 … 3, four rows, decoded but not scaled. */
  readonly column: (b: number) => string;
}

/** One layout: how a run of 32 columns of a row is read, in WGSL and on the CPU. */
export interface Layout {
  readonly name: LayoutName;
  /** Bits of a code's planes, the lowest bits first: [4], or [4, 1] for a code of 5 bits (bit_planes.ts). */
  readonly planes: readonly number[];
  /** u32 words that a row's run of 32 columns takes: as many as a code has bits. */
  readonly runWords: number;
  readonly scaling: Scaling;
  /**
   * `fn eight(run: u32, step: u32) -> Eight`: columns 8 · step … 8 · step + 7 of a run and four rows, decoded but not
   * scaled. `run` indexes `words: array<vec4u>` at the run's first word; its next word is 8 vec4u further.
   */
  readonly eight: string;
  /** The same for adapters that shift vectors lane by lane and convert signed integers alone: by masks, and factors that are powers of two. */
  readonly eightByMasks?: string;
  readonly halves: Halves;
  /** `fn prepare(lane: u32)`, called once in uniform control flow, where `eight` needs something in workgroup memory. */
  readonly prepare?: string;
  /** The number that a code stands for, not scaled; of a table's codes, their place in it. */
  value(code: number): number;
}

/** Four rows × eight columns: q3.y is column 3 of the second row. */
export const EIGHT = /* wgsl */ `
struct Eight { q0: vec4f, q1: vec4f, q2: vec4f, q3: vec4f, q4: vec4f, q5: vec4f, q6: vec4f, q7: vec4f }`;

/** The next multiple of `step` from `value` on. */
const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step;
/** Rows with those that fill the last block of 32. */
export const paddedRows = (rows: number): number => roundUp(rows, BLOCK_ROWS);
/** Columns with those that fill the last run of 32. */
export const paddedCols = (cols: number): number => roundUp(cols, BLOCK_COLS);
/** Runs of 32 columns a row. */
export const runCount = (cols: number): number => Math.ceil(cols / BLOCK_COLS);
/** Words that a matrix of this layout takes, padding included. */
export function wordCount({ runWords }: Layout, rows: number, cols: number): number {
  return paddedRows(rows) * runCount(cols) * runWords;
}

/** Groups of a row. */
export const groupCount = ({ cols, group }: Pick<MatrixShape, "cols" | "group">): number => Math.ceil(cols / group);

/** Where the parameters of a row's groups lie, in bits from the beginning of its words; group g is `step` bits behind group g - 1. */
export interface ParamPlaces {
  readonly scale: { readonly first: number; readonly step: number };
  /** Biases, or stored zeros. */
  readonly offset: { readonly first: number; readonly step: number } | undefined;
  /** The bit at which the row's factor lies, of e4m3 scales. */
  readonly factor: number | undefined;
  /** Words of a row. */
  readonly words: number;
}

const SCALE_BITS: Readonly<Record<ScaleType, number>> = { f16: 16, bf16: 16, f32: 32, e8m0: 8, e4m3: 8 };

/** The places of a matrix's group parameters: a scale and its bias share a word or follow each other; zeros lie behind all scales. */
export function paramPlaces({ scaling }: Pick<Layout, "scaling">, shape: Omit<MatrixShape, "rows">): ParamPlaces {
  const groups = groupCount(shape);
  const bits = SCALE_BITS[shape.scaleType];
  const none = { offset: undefined, factor: undefined };
  if (scaling === "none") return { scale: { first: 0, step: 32 }, ...none, words: 0 };
  // Lane r of word w of a block has group 32 w + r.
  if (shape.sharedRows) return { scale: { first: 0, step: 32 }, ...none, words: Math.ceil(groups / BLOCK_ROWS) };
  if (scaling === "affine" && shape.zeros === undefined) {
    const scale = { first: 0, step: 2 * bits };
    return { scale, offset: { first: bits, step: 2 * bits }, factor: undefined, words: (groups * 2 * bits) / 32 };
  }
  const lead = shape.scaleType === "e4m3" ? 1 : 0;
  const scaleWords = lead + Math.ceil((groups * bits) / 32);
  const zeroBits = shape.zeros?.bits ?? 0;
  return {
    scale: { first: 32 * lead, step: bits },
    offset: zeroBits === 0 ? undefined : { first: 32 * scaleWords, step: zeroBits },
    factor: lead === 1 ? 0 : undefined,
    words: scaleWords + Math.ceil((groups * zeroBits) / 32),
  };
}

/** u32 group parameters of a row; 0 where the layout has none. */
export const paramWords = (layout: Pick<Layout, "scaling">, shape: Omit<MatrixShape, "rows">): number =>
  paramPlaces(layout, shape).words;

/** u32 group parameters that a matrix takes, padding included. */
export const scaleCount = (layout: Layout, shape: MatrixShape): number =>
  paddedRows(shape.rows) * paramWords(layout, shape);

/** Where the first word of the run of (row, column) lies; its next one is BLOCK_ROWS further. */
export function runIndex({ runWords }: Layout, cols: number, row: number, column: number): number {
  const block = Math.floor(row / BLOCK_ROWS);
  const run = Math.floor(column / BLOCK_COLS);
  return (block * runCount(cols) + run) * runWords * BLOCK_ROWS + (row % BLOCK_ROWS);
}

/** Where word `word` of a row's group parameters lies. */
export function paramIndex(layout: Layout, shape: MatrixShape, row: number, word: number): number {
  const block = Math.floor(row / BLOCK_ROWS);
  return (block * paramWords(layout, shape) + word) * BLOCK_ROWS + (row % BLOCK_ROWS);
}
