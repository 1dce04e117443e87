/** Plain weights: a tensor of F32, F16 or BF16, (outputs, inputs) or the other way round. */
import { BLOCK_COLS } from "../../kernels/formats/layout.ts";
import {
  checkDtype,
  checkShape,
  columnMajor,
  type ModuleShape,
  PLAIN,
  rowMajor,
  type StoredModule,
  type Tensors,
} from "./stored.ts";
import { widened } from "./unpacked.ts";

/** The module's tensor as it is; undefined where it is missing. */
export function plainModule(tensors: Tensors, shape: ModuleShape): StoredModule | undefined {
  const { rows, cols, transposed, expertRows } = shape;
  const tensor = tensors.claim(shape.weight);
  if (tensor === undefined) return undefined;
  checkDtype(tensor, ...Object.keys(PLAIN));
  const layout = PLAIN[tensor.dtype] ?? "f32";
  const bits = layout === "f32" ? 32 : 16;
  const storage = { format: tensor.dtype, layout, group: BLOCK_COLS, scaleType: "f16", params: [] } as const;
  if (!transposed) {
    checkShape(tensor, [rows, cols]);
    return withWide({ ...storage, codes: rowMajor(tensor, bits, cols) });
  }
  const each = expertRows ?? rows;
  checkShape(tensor, [cols * (rows / each), each], "config.json, inputs first");
  return withWide({ ...storage, codes: columnMajor(tensor, bits, cols, each) });
}

const withWide = (stored: StoredModule): StoredModule =>
  stored.layout === "f32" ? stored : { ...stored, unpacked: () => widened(stored) };
