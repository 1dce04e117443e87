/**
 * GPTQ: `qweight` I32 (cols · bits / 32, rows), whose words hold neighbouring inputs of one output; `qzeros` I32 (groups, rows · bits / 32), whose words hold
 * neighbouring outputs; `scales` (groups, rows); `g_idx` I32 (cols), the group of each input.
 *
 *   w[o][i] = scales[g][o] · (q[i][o] − zero[g][o]),   g = g_idx[i],   zero = stored + 1, or as stored where checkpoint_format is gptq_v2
 *
 * Modules with these tensors are quantized, all others plain. `sym` needs no reading: zeros are stored in either case. With `desc_act`, `g_idx` must be there.
 */
import type { LayoutName } from "../../kernels/formats/layout.ts";
import { booleanField, type Fields, field, integerField, textField, unsupported } from "../configChecks.ts";
import { groupsFit, groupsOf, groupViewByColumns } from "./groups.ts";
import { columnGroups, columnOrder } from "./order.ts";
import { groupSize, isPacked, packedTensors } from "./packedColumns.ts";
import {
  checkDtype,
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

interface Scheme {
  readonly bits: 4 | 8;
  /** undefined: one group a row. */
  readonly group: number | undefined;
  /** What is added to a stored zero. */
  readonly add: 0 | 1;
  /** Whether columns may lie in any group, so that `g_idx` must be there. */
  readonly anyOrder: boolean;
}

/** Reads `quantization_config` of GPTQ. */
export function readGptq(fields: Fields): Quantization {
  const bits = integerField(fields, "bits", { min: 1, max: 64 });
  if (bits !== 4 && bits !== 8) throw unsupported(fields, "bits", "4, 8");
  const format = textField(fields, "checkpoint_format") ?? "gptq";
  if (format !== "gptq" && format !== "gptq_v2") throw unsupported(fields, "checkpoint_format", '"gptq", "gptq_v2"');
  if ((textField(fields, "pack_dtype") ?? "int32") !== "int32") throw unsupported(fields, "pack_dtype", '"int32"');
  if (booleanField(fields, "is_marlin_format") === true) throw unsupported(fields, "is_marlin_format", "false");
  // Widths of single modules, by patterns.
  const dynamic = field(fields, "dynamic");
  if (dynamic !== undefined && !(typeof dynamic === "object" && dynamic !== null && Object.keys(dynamic).length === 0))
    throw unsupported(fields, "dynamic", "none");
  const anyOrder = booleanField(fields, "desc_act") ?? false;
  const scheme = { bits, group: groupSize(fields), add: format === "gptq" ? 1 : 0, anyOrder } as const;
  return {
    method: "gptq",
    summary: JSON.stringify(scheme),
    names: [],
    isDetail: (name) => /\.(g_idx|bias)$/.test(name),
    module: (tensors, shape) => (isPacked(tensors, shape) ? gptqModule(tensors, shape, scheme) : null),
  };
}

function gptqModule(
  tensors: Tensors,
  shape: ModuleShape,
  { bits, group, add, anyOrder }: Scheme,
): StoredModule | undefined {
  const { module, rows, cols } = shape;
  const g_idx = anyOrder ? tensors.claim(`${module}.g_idx`) : tensors.claimIfThere(`${module}.g_idx`);
  const packed = packedTensors(tensors, shape, { bits, group, along: "inputs" });
  if (packed === undefined || (anyOrder && g_idx === undefined)) return undefined;
  if (g_idx !== undefined) checkDtype(g_idx, "I32", "U32");
  const { qweight, qzeros, scales, scaleType, groups: count } = packed;
  const per = 32 / bits;
  const format = `gptq ${bits} bits, ${inGroups(group)}`;
  const bytes = g_idx === undefined ? undefined : tensors.detail(g_idx.name);
  const inGroup = bytes === undefined ? undefined : columnGroups(g_idx?.name ?? "", bytes, { cols, count });
  const unpacked = () =>
    unpackedIntegers(format, {
      from: qweight,
      lines: "columns",
      rows,
      cols,
      scale: scales,
      groupOf: (column) => inGroup?.[column] ?? Math.floor(column / (group ?? cols)),
      groups: count,
      async codes(first, end, signal) {
        const word = Math.floor(first / per);
        const words = await readWords(qweight, word * rows, Math.ceil(end / per) * rows, signal);
        return (column, row) =>
          bitsAt(words, ((Math.floor(column / per) - word) * rows + row) * 32 + (column % per) * bits, bits);
      },
      async zeros(signal) {
        const words = await allWords(qzeros, signal);
        return (row, g) => bitsAt(words, (g * rows + row) * bits, bits) + add;
      },
    });
  if (!groupsFit(cols, group)) return unpacked();
  const groups = groupsOf(module, cols, group);
  const layout: LayoutName = bits === 4 ? "affine4" : "affine8";
  const storage = { layout, group: groups.group, scaleType, zeros: { bits, add } };
  const codes = columnMajor(qweight, bits, cols, rows, {
    rowTile: 1,
    rowTileStride: per,
    rowStride: 0,
    columnTile: per,
    columnTileStride: per * rows,
    columnStride: 1,
    outer: { by: "column", span: per, step: per * rows, rows, elements: cols * rows },
  });
  const params = paramViews(storage, cols, {
    scale: groupViewByColumns(scales, scaleBits(scaleType), groups, rows),
    offset: groupViewByColumns(qzeros, bits, groups, rows),
  });
  const order =
    bytes === undefined ? undefined : columnOrder(g_idx?.name ?? "", bytes, { cols, stored: groups.stored, count });
  return { ...storage, format: order === undefined ? format : `${format}, act-order`, order, codes, params, unpacked };
}
