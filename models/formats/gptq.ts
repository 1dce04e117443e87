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
import { ModelFormatError } from "../errors.ts";
import { groupsFit, groupsOf, groupViewByColumns, storedGroups } from "./groups.ts";
import { columnGroups, columnOrder } from "./order.ts";
import {
  checkDtype,
  checkShape,
  columnMajor,
  inGroups,
  type ModuleShape,
  paramViews,
  type Quantization,
  type StoredModule,
  scaleBits,
  scaleTypeOf,
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

/** `group_size`: columns a group; −1 is one group a row. */
export function groupSize(fields: Fields): number | undefined {
  if (field(fields, "group_size") === -1) return undefined;
  return integerField(fields, "group_size", { min: 1, max: 2 ** 24 });
}

/** Whether a module has GPTQ's or AWQ's tensors, or some of them and no plain weight: the others are then missing. */
export function isPacked(tensors: Tensors, { module, weight }: ModuleShape): boolean {
  if (tensors.has(`${module}.qweight`)) return true;
  return !tensors.has(weight) && ["qzeros", "scales"].some((name) => tensors.has(`${module}.${name}`));
}

function gptqModule(
  tensors: Tensors,
  { module, rows, cols }: ModuleShape,
  { bits, group, add, anyOrder }: Scheme,
): StoredModule | undefined {
  const [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map((name) => tensors.claim(`${module}.${name}`));
  const g_idx = anyOrder ? tensors.claim(`${module}.g_idx`) : tensors.claimIfThere(`${module}.g_idx`);
  if (qweight === undefined || qzeros === undefined || scales === undefined) return undefined;
  if (anyOrder && g_idx === undefined) return undefined;
  const count = storedGroups(cols, group);
  const per = 32 / bits;
  const because = `${bits} bits and group_size ${group ?? -1} in config.json`;
  wholeWords(module, rows, cols, per);
  checkShape(qweight, [cols / per, rows], because);
  checkShape(qzeros, [count, rows / per], because);
  checkShape(scales, [count, rows], because);
  for (const tensor of [qweight, qzeros]) checkDtype(tensor, "I32", "U32");
  const scaleType = scaleTypeOf(scales);
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

function wholeWords(module: string, rows: number, cols: number, per: number): void {
  if (rows % per === 0 && cols % per === 0) return;
  throw new ModelFormatError(
    "TENSOR_SHAPE",
    `${module}: ${rows} × ${cols} from config.json, expected multiples of ${per} to fill words`,
  );
}
