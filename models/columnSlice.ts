/** Some columns of a module as a module of their own: a slice of an MLP's way back. */
import { paddedCols, paramPlaces } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { StoredModule } from "./formats/stored.ts";
import type { ParamView, TensorView } from "./matrix.ts";

/** Which columns. */
export interface ColumnSlice {
  readonly first: number;
  readonly count: number;
  /** Columns of the whole tensor. */
  readonly of: number;
}

/**
 * The module's columns `first` … `first + count - 1`, for a matrix of `cols`. One group of all columns is one group of the matrix's; throws
 * UnsupportedModelError where another would be cut.
 */
export function sliceColumns(
  name: string,
  stored: StoredModule,
  { first, count, of }: ColumnSlice,
  cols: number,
): StoredModule {
  if (first === 0 && count === of) return stored;
  const { codes, params, ...storage } = stored;
  const layout = layouts[storage.layout];
  const scaled = layout.scaling !== "none";
  if (scaled && storage.group >= of)
    return { ...stored, group: paddedCols(cols), codes: columnsOf(codes, first, count) };
  if (scaled && first % storage.group !== 0) {
    const message = `${name}: columns are cut at ${first}, expected a multiple of the group, ${storage.group}`;
    throw new UnsupportedModelError(`${message}; quantize by smaller groups`);
  }
  const groups = scaled ? Math.ceil(count / storage.group) : 0;
  const places = scaled ? paramPlaces(layout, { ...storage, cols: count }) : undefined;
  const factor = places?.factor === undefined ? undefined : { first: places.factor, step: 32 };
  const kinds = [places?.scale, places?.offset].filter((place) => place !== undefined);
  const cut = params.map((param, i): ParamView => {
    const place = kinds[i];
    // What lies behind the groups' parameters is one a row.
    if (place === undefined) return { ...param, firstBit: factor?.first ?? param.firstBit };
    const view = columnsOf(param.view, first / storage.group, groups);
    return { view, firstBit: place.first, stepBits: place.step };
  });
  return { ...storage, codes: columnsOf(codes, first, count), params: cut };
}

function columnsOf(view: TensorView, first: number, columns: number): TensorView {
  const { columnTile, columnTileStride, columnStride, outer } = view;
  const tile = Math.floor(first / columnTile);
  const base = view.base + tile * columnTileStride + (first % columnTile) * columnStride;
  if (first % columnTile !== 0) {
    throw new UnsupportedModelError(
      `${view.tensor.name}: columns are cut at ${first}, expected at a multiple of ${columnTile}`,
    );
  }
  return { ...view, base, columns, outer: { ...outer, skip: (outer.skip ?? 0) + first } };
}
