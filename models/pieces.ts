/** How tensors are cut into pieces while they stream in, and where the rows and columns of a piece go. */
import { BLOCK_COLS, BLOCK_ROWS, paramWords, runCount } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import type { Matrix, ParamView, Part, RowSlice, Storage, TensorView } from "./matrix.ts";
import type { CheckpointTensor } from "./weights/checkpoint.ts";

/** What one part takes from a tensor: codes, or a group parameter. */
export interface Target {
  readonly part: Part;
  readonly view: TensorView;
  readonly param: ParamView | undefined;
}

/** Neighbouring bytes of a tensor, from a whole word on. */
export interface Piece {
  readonly tensor: CheckpointTensor;
  readonly begin: number;
  readonly end: number;
  /** Index of its first element, and how many it holds. */
  readonly first: number;
  readonly count: number;
}

/** Rows of a part and words of their stored rows that a piece has something for. */
export interface Place {
  readonly rowBegin: number;
  readonly rowEnd: number;
  readonly rowWords: number;
  readonly firstWord: number;
  readonly words: number;
}

/** Bytes of a block of 32 stored rows: its words, and its group parameters. */
export function blockBytes(matrix: Storage & { readonly cols: number }) {
  const layout = layouts[matrix.layout];
  return {
    words: BLOCK_ROWS * runCount(matrix.cols) * layout.runWords * 4,
    scales: BLOCK_ROWS * paramWords(layout, matrix) * 4,
  };
}

/** What a matrix takes from each tensor: one that several parts share is read once. */
export function targetsOf({ parts }: Matrix): Map<CheckpointTensor, Target[]> {
  const targets = new Map<CheckpointTensor, Target[]>();
  const add = (part: Part, view: TensorView, param: ParamView | undefined) => {
    if (part.rows === 0) return;
    targets.set(view.tensor, [...(targets.get(view.tensor) ?? []), { part, view, param }]);
  };
  for (const part of parts) add(part, part.codes, undefined);
  for (const part of parts) for (const param of part.params) add(part, param.view, param);
  return targets;
}

/** The pieces of a tensor that some target needs, in the file's order, each of about `most` bytes and of whole rows or columns. */
export function* piecesOf(tensor: CheckpointTensor, targets: readonly Target[], most: number): Generator<Piece> {
  const [view] = targets.map((target) => target.view);
  if (view === undefined) return;
  const { bits, outer } = view;
  const size = tensor.end - tensor.begin;
  const ranges = targets.map(elementRange);
  const first = Math.min(...ranges.map(({ begin }) => begin));
  const last = Math.max(...ranges.map(({ end }) => end));
  // A word less, since a piece is widened to whole words.
  const each = Math.max(Math.floor(((most - 4) * 8) / bits / outer.step), 1) * outer.step;
  for (let at = first; at < last; at += each) {
    const to = Math.min(at + each, last);
    if (!ranges.some(({ begin, end }) => begin < to && at < end)) continue;
    const begin = 4 * Math.floor((at * bits) / 32);
    const end = Math.min(Math.ceil((to * bits) / 8), size);
    yield { tensor, begin, end, first: (begin * 8) / bits, count: Math.floor(((end - begin) * 8) / bits) };
  }
}

/** Elements of the tensor that a target needs, in steps that the file may be cut at. */
function elementRange({ part, view }: Target): { begin: number; end: number } {
  const { slice, rows } = part;
  const { by, span, step, rows: stackRows, elements } = view.outer;
  const last = tensorRow(slice, rows - 1);
  if (by === "row") return { begin: Math.floor(slice.first / span) * step, end: (Math.floor(last / span) + 1) * step };
  return {
    begin: Math.floor(slice.first / stackRows) * elements,
    end: (Math.floor(last / stackRows) + 1) * elements,
  };
}

/** The tensor's row of a part's row. */
export const tensorRow = ({ first, take, period }: RowSlice, row: number): number =>
  first + Math.floor(row / take) * period + (row % take);

/** The first row of the part that is the tensor's row t or lies behind it. */
function rowFrom({ first, take, period }: RowSlice, t: number): number {
  if (t <= first) return 0;
  const turn = Math.floor((t - first) / period);
  return turn * take + Math.min(t - first - turn * period, take);
}

/** Where a piece's elements go; undefined where the target needs none of them. */
export function placesIn(matrix: Matrix, { part, view, param }: Target, { first, count }: Piece): Place | undefined {
  const { by, span, step, rows: stackRows, elements, skip = 0 } = view.outer;
  const layout = layouts[matrix.layout];
  const rowWords = param === undefined ? runCount(matrix.cols) * layout.runWords : paramWords(layout, matrix);
  if (by === "row") {
    const rowBegin = rowFrom(part.slice, Math.floor(first / step) * span);
    const rowEnd = Math.min(rowFrom(part.slice, Math.ceil((first + count) / step) * span), part.rows);
    if (rowBegin >= rowEnd) return undefined;
    return { rowBegin, rowEnd, rowWords, ...wordsOf(matrix, param, 0, view.columns) };
  }
  const before = Math.floor(part.slice.first / stackRows) * elements;
  if (param === undefined && matrix.order !== undefined)
    return { rowBegin: 0, rowEnd: part.rows, rowWords, ...wordsOf(matrix, param, 0, view.columns) };
  const columnBegin = Math.max(Math.floor((first - before) / step) * span - skip, 0);
  const columnEnd = Math.min(Math.ceil((first + count - before) / step) * span - skip, view.columns);
  if (columnBegin >= columnEnd) return undefined;
  return { rowBegin: 0, rowEnd: part.rows, rowWords, ...wordsOf(matrix, param, columnBegin, columnEnd) };
}

/** Words of a stored row that columns (or groups) begin … end-1 touch. */
function wordsOf({ layout }: Matrix, param: ParamView | undefined, begin: number, end: number) {
  if (param === undefined) {
    const { runWords } = layouts[layout];
    const firstWord = Math.floor(begin / BLOCK_COLS) * runWords;
    return { firstWord, words: Math.ceil(end / BLOCK_COLS) * runWords - firstWord };
  }
  if (param.sharedRows) {
    const firstWord = Math.floor(begin / BLOCK_ROWS);
    return { firstWord, words: Math.ceil(end / BLOCK_ROWS) - firstWord };
  }
  const wordOf = (index: number) => Math.floor((param.firstBit + index * param.stepBits) / 32);
  return { firstWord: wordOf(begin), words: wordOf(end - 1) + 1 - wordOf(begin) };
}
