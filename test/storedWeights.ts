/** Weights of a planned matrix on the CPU, from the checkpoint's own bytes: what the GPU must come to hold. */
import { e4m3FromBits } from "../kernels/formats/group_scales.ts";
import { bf16FromBits, f16FromBits, f32FromBits } from "../kernels/formats/halves.ts";
import { groupCount, paramPlaces, type ScaleType } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import type { Matrix, Part, TensorView } from "../models/matrix.ts";
import { tensorRow } from "../models/pieces.ts";

const FROM_BITS: Readonly<Record<ScaleType, (bits: number) => number>> = {
  f16: f16FromBits,
  bf16: bf16FromBits,
  f32: f32FromBits,
  e8m0: (bits) => f32FromBits((bits << 23) >>> 0),
  e4m3: e4m3FromBits,
};

/** Reads elements of a tensor by its view, a bit at a time. */
async function reader(view: TensorView): Promise<(t: number, column: number) => number> {
  const { tensor, bits } = view;
  const bytes = await tensor.source.read(tensor.begin, tensor.end);
  return (t, column) => {
    let e =
      view.base +
      Math.floor(t / view.rowTile) * view.rowTileStride +
      (t % view.rowTile) * view.rowStride +
      Math.floor(column / view.columnTile) * view.columnTileStride +
      (column % view.columnTile) * view.columnStride;
    if (view.elementOrder === "swapped") e += e % 2 === 0 ? 1 : -1;
    if (view.elementOrder === "awq") e += ([0, 4, 1, 5, 2, 6, 3, 7][e % 8] ?? Number.NaN) - (e % 8);
    let value = 0;
    for (let i = 0; i < bits; i++) {
      const bit = e * bits + i;
      const byte = bytes[Math.floor(bit / 8)];
      if (byte === undefined) throw new RangeError(`${tensor.name}: element ${e} is past its end`);
      value += ((byte >> (bit % 8)) & 1) * 2 ** i;
    }
    return (value ^ view.flip) >>> 0;
  };
}

/** f32 weights (rows, cols) of one part, columns as the model has them. */
export async function storedWeights(matrix: Matrix, part: Part): Promise<Float32Array> {
  const { cols, group, zeros, table, order } = matrix;
  const layout = layouts[matrix.layout];
  const code = await reader(part.codes);
  const readers = await Promise.all(
    part.params.map(async ({ view, firstBit, sharedRows }) => {
      const read = await reader(view);
      return sharedRows
        ? { firstBit: 0, read: (t: number, g: number) => (read(t, g) << firstBit) >>> 0 } // bf16 as the upper half
        : { firstBit, read };
    }),
  );
  const places = paramPlaces(layout, matrix);
  const at = (first: number | undefined) => readers.find(({ firstBit }) => firstBit === first)?.read;
  const [scaleAt, offsetAt] = [at(places.scale.first), at(places.offset?.first)];
  const factorAt = at(places.factor);
  const number = FROM_BITS[matrix.scaleType];
  const out = new Float32Array(part.rows * cols);
  for (let row = 0; row < part.rows; row++) {
    const t = tensorRow(part.slice, row);
    for (let c = 0; c < cols; c++) {
      const column = order?.[c] ?? c;
      const q = code(t, column);
      const value = table === undefined ? layout.value(q) : (table[q] ?? Number.NaN);
      const g = Math.floor(c / group);
      if (g >= groupCount(matrix)) throw new RangeError(`group ${g}`);
      let weight = value;
      if (layout.scaling !== "none" && scaleAt !== undefined) {
        const factor = factorAt === undefined ? 1 : f32FromBits(factorAt(t, 0));
        const scale = Math.fround(number(scaleAt(t, g)) * factor);
        const offset = offsetAt?.(t, g) ?? 0;
        if (layout.scaling === "affine" && zeros === undefined) weight = Math.fround(scale * value) + number(offset);
        else weight = scale * (value - offset - (zeros?.add ?? 0));
      }
      out[row * cols + column] = weight;
    }
  }
  return out;
}
