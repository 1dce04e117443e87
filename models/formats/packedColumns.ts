/** What GPTQ and AWQ share: a module's `qweight`, `qzeros` and `scales`, which lie by columns, their integers packed in words. */
import type { ScaleType } from "../../kernels/formats/layout.ts";
import { type Fields, field, integerField } from "../configChecks.ts";
import { ModelFormatError } from "../errors.ts";
import type { CheckpointTensor } from "../weights/checkpoint.ts";
import { storedGroups } from "./groups.ts";
import { checkDtype, checkShape, type ModuleShape, scaleTypeOf, type Tensors } from "./stored.ts";

/** How the integers of `qweight` lie; those of `qzeros` are neighbouring outputs in either case. */
export interface Packing {
  readonly bits: number;
  /** Columns a group; undefined: one group a row. */
  readonly group: number | undefined;
  /** Whether a word holds neighbouring inputs of one output, or outputs of one input. */
  readonly along: "inputs" | "outputs";
}

/** The tensors of a module. */
export interface PackedTensors {
  readonly qweight: CheckpointTensor;
  readonly qzeros: CheckpointTensor;
  readonly scales: CheckpointTensor;
  readonly scaleType: ScaleType;
  /** Groups of a row. */
  readonly groups: number;
}

/** `group_size`: columns a group; −1 is one group a row. */
export function groupSize(fields: Fields): number | undefined {
  if (field(fields, "group_size") === -1) return undefined;
  return integerField(fields, "group_size", { min: 1, max: 2 ** 24 });
}

/** Whether a module has such tensors, or some of them and no plain weight: the others are then missing. */
export function isPacked(tensors: Tensors, { module, weight }: ModuleShape): boolean {
  if (tensors.has(`${module}.qweight`)) return true;
  return !tensors.has(weight) && ["qzeros", "scales"].some((name) => tensors.has(`${module}.${name}`));
}

/** A module's tensors, claimed; undefined where one is missing. Throws ModelFormatError and UnsupportedModelError for others than expected. */
export function packedTensors(
  tensors: Tensors,
  { module, rows, cols }: ModuleShape,
  { bits, group, along }: Packing,
): PackedTensors | undefined {
  const [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map((name) => tensors.claim(`${module}.${name}`));
  if (qweight === undefined || qzeros === undefined || scales === undefined) return undefined;
  const per = 32 / bits;
  const groups = storedGroups(cols, group);
  const because = `${bits} bits and group_size ${group ?? -1} in config.json`;
  if (rows % per !== 0 || (along === "inputs" && cols % per !== 0)) throw brokenWords(module, rows, cols, per);
  checkShape(qweight, along === "inputs" ? [cols / per, rows] : [cols, rows / per], because);
  checkShape(qzeros, [groups, rows / per], because);
  checkShape(scales, [groups, rows], because);
  for (const tensor of [qweight, qzeros]) checkDtype(tensor, "I32", "U32");
  return { qweight, qzeros, scales, scaleType: scaleTypeOf(scales), groups };
}

function brokenWords(module: string, rows: number, cols: number, per: number): ModelFormatError {
  const message = `${rows} × ${cols} from config.json, expected multiples of ${per} to fill words`;
  return new ModelFormatError("TENSOR_SHAPE", `${module}: ${message}`);
}
