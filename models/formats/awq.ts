/**
 * AWQ, "gemm": `qweight` I32 (cols, rows / 8) and `qzeros` I32 (groups, rows / 8), whose words hold eight neighbouring outputs in the order 0, 2, 4, 6, 1, 3, 5, 7;
 * `scales` (groups, rows).
 *
 *   w[o][i] = scales[i / group_size][o] · (q[i][o] − zero[i / group_size][o])
 *
 * Modules with these tensors are quantized, all others plain.
 */
import { type Fields, integerField, textField, unsupported } from "../configChecks.ts";
import { groupsFit, groupsOf, groupViewByColumns } from "./groups.ts";
import { groupSize, isPacked, packedTensors } from "./packedColumns.ts";
import {
  columnMajor,
  inGroups,
  type ModuleShape,
  paramViews,
  type Quantization,
  type StoredModule,
  scaleBits,
  type Tensors,
} from "./stored.ts";
import { allWords, bitsAt, readWords, unpackedIntegers } from "./unpacked.ts";

/** Outputs a word. */
const PER = 8;
/** Where the word of an output has it. */
const PLACES = [0, 4, 1, 5, 2, 6, 3, 7];

/** Reads `quantization_config` of AWQ. */
export function readAwq(fields: Fields): Quantization {
  const bits = integerField(fields, "bits", { min: 1, max: 64 });
  if (bits !== 4) throw unsupported(fields, "bits", "4");
  const version = (textField(fields, "version") ?? "gemm").toLowerCase();
  if (version !== "gemm") throw unsupported(fields, "version", '"gemm"');
  const group = groupSize(fields);
  return {
    method: "awq",
    summary: JSON.stringify({ group }),
    names: [],
    isDetail: () => false,
    module: (tensors, shape) => (isPacked(tensors, shape) ? awqModule(tensors, shape, group) : null),
  };
}

function awqModule(tensors: Tensors, shape: ModuleShape, group: number | undefined): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const packed = packedTensors(tensors, shape, { bits: 4, group, along: "outputs" });
  if (packed === undefined) return undefined;
  const { qweight, qzeros, scales, scaleType, groups: count } = packed;
  const format = `awq 4 bits, ${inGroups(group)}`;
  const nibble = (words: Uint32Array, line: number, row: number) =>
    bitsAt(words, (line * rows + row - (row % PER) + (PLACES[row % PER] ?? Number.NaN)) * 4, 4);
  const unpacked = () =>
    unpackedIntegers(format, {
      from: qweight,
      lines: "columns",
      rows,
      cols,
      scale: scales,
      groupOf: (column) => Math.floor(column / (group ?? cols)),
      groups: count,
      async codes(first, end, signal) {
        const words = await readWords(qweight, (first * rows) / PER, (end * rows) / PER, signal);
        return (column, row) => nibble(words, column - first, row);
      },
      async zeros(signal) {
        const words = await allWords(qzeros, signal);
        return (row, g) => nibble(words, g, row);
      },
    });
  if (!groupsFit(cols, group)) return unpacked();
  const groups = groupsOf(module, cols, group);
  const storage = { layout: "affine4", group: groups.group, scaleType, zeros: { bits: 4, add: 0 } } as const;
  const params = paramViews(storage, cols, {
    scale: groupViewByColumns(scales, scaleBits(scaleType), groups, rows),
    offset: groupViewByColumns(qzeros, 4, groups, rows, "awq"),
  });
  const codes = columnMajor(qweight, 4, cols, rows, { elementOrder: "awq" });
  return { ...storage, format, codes, params, unpacked };
}
