import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fieldsOf } from "./bit_planes.ts";
import { bf16Bits, bf16FromBits, f16Bits, f16FromBits } from "./halves.ts";
import {
  BLOCK_ROWS,
  groupCount,
  type MatrixShape,
  paddedCols,
  paddedRows,
  paramIndex,
  paramPlaces,
  runIndex,
  SCALE_TYPES,
  type ScaleType,
  scaleCount,
  wordCount,
} from "./layout.ts";
import { LAYOUT_NAMES, layouts } from "./layouts.ts";
import { codeOf, pack, unpack } from "./packing.ts";

/** `value` as a scale type stores it. */
function stored(value: number, scaleType: ScaleType): number {
  if (scaleType === "f32") return Math.fround(value);
  return scaleType === "f16" ? f16FromBits(f16Bits(value)) : bf16FromBits(bf16Bits(value));
}

const shapes = fc.record({
  rows: fc.integer({ min: 1, max: 70 }),
  groups: fc.integer({ min: 1, max: 3 }),
  cols: fc.integer({ min: 1, max: 70 }),
  group: fc.constantFrom(32, 64, 128),
  scaleType: fc.constantFrom(...SCALE_TYPES),
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
});

/** Of layouts that have one. */
const TABLE = Float32Array.from({ length: 16 }, (_, i) => i);

/** A number that depends on its place, so that a swapped place shows. */
const mixed = (seed: number, ...place: number[]) =>
  place.reduce((hash, i) => Math.imul(hash ^ i, 0x9e3779b1) ^ (hash >>> 15), seed | 1) >>> 0;

describe.each(LAYOUT_NAMES)("%s", (name) => {
  const layout = layouts[name];
  const sized = ({ rows, cols, groups, group, scaleType }: MatrixShape & { groups: number }): MatrixShape =>
    layout.scaling !== "none"
      ? { rows, cols: groups * group, group, scaleType, table: TABLE }
      : { rows, cols, group: 32, scaleType };
  const numberOf = (code: number) => (layout.prepare === undefined ? layout.value(code) : (TABLE[code] ?? Number.NaN));

  test("unpacks what was packed, for every shape", () => {
    fc.assert(
      fc.property(shapes, (drawn) => {
        const shape = sized(drawn);
        const bits = layout.runWords; // of a code
        const value = (row: number, column: number) => (mixed(drawn.seed, row, column) / 2 ** 32 - 0.5) * 4;
        const code = (row: number, column: number) =>
          layout.scaling !== "none"
            ? mixed(drawn.seed, row, column) >>> (32 - bits)
            : codeOf(layout, value(row, column));
        const scale = (row: number, g: number) => ({
          scale: 0.01 + mixed(drawn.seed, row, g, 1) / 2 ** 34,
          bias: mixed(drawn.seed, row, g, 2) / 2 ** 31 - 1,
        });
        const packed = pack(layout, shape, { code, scale });
        expect(packed.words.length).toBe(wordCount(layout, shape.rows, shape.cols));
        expect(packed.scales.length).toBe(scaleCount(layout, shape));
        const values = unpack(layout, shape, packed);
        for (let i = 0; i < values.length; i++) {
          const [row, column] = [Math.floor(i / shape.cols), i % shape.cols];
          const group = scale(row, Math.floor(column / shape.group));
          const want =
            layout.scaling !== "none"
              ? stored(group.scale, shape.scaleType) * numberOf(code(row, column)) +
                (layout.scaling === "affine" ? stored(group.bias, shape.scaleType) : 0)
              : name === "f32"
                ? Math.fround(value(row, column))
                : stored(value(row, column), name === "f16" ? "f16" : "bf16");
          // An expectation a value would take most of the time.
          if (!Object.is(values[i], want))
            expect({ row, column, value: values[i] }).toEqual({ row, column, value: want });
        }
      }),
      { numRuns: 40 },
    );
  });

  test("gives each field of each word to one place, padding left zero", () => {
    fc.assert(
      fc.property(shapes, (drawn) => {
        const shape = sized(drawn);
        const taken = new Map<number, number>();
        for (let row = 0; row < shape.rows; row++) {
          for (let column = 0; column < shape.cols; column++) {
            for (const { word, bits } of fieldsOf(layout.planes, column % 32)) {
              const at = runIndex(layout, shape.cols, row, column) + word * BLOCK_ROWS;
              taken.set(at, (taken.get(at) ?? 0) + bits);
            }
          }
        }
        expect(Math.max(...taken.values())).toBeLessThanOrEqual(32);
        expect(Math.max(...taken.keys())).toBeLessThan(wordCount(layout, shape.rows, shape.cols));
        const ones = pack(layout, shape, { code: () => codeOfOne(name), scale: () => ({ scale: 1, bias: 0 }) });
        expect(ones.words.filter((word, i) => word !== 0 && !taken.has(i))).toEqual(new Uint32Array());
        const all = unpack(layout, { ...shape, rows: paddedRows(shape.rows), cols: paddedCols(shape.cols) }, ones);
        expect(all.reduce((a, b) => a + b)).toBe(shape.rows * shape.cols);
      }),
      { numRuns: 40 },
    );
  });

  test.runIf(layout.scaling !== "none")(
    "has a place of its own for the scale and the bias of each row and group",
    () => {
      fc.assert(
        fc.property(shapes, (drawn) => {
          const shape = sized(drawn);
          const places = new Set<number>();
          const { scale, offset } = paramPlaces(layout, shape);
          for (let row = 0; row < paddedRows(shape.rows); row++) {
            for (let g = 0; g < groupCount(shape); g++) {
              for (const place of [scale, offset].filter((it) => it !== undefined)) {
                const bit = place.first + g * place.step;
                places.add(32 * paramIndex(layout, shape, row, Math.floor(bit / 32)) + (bit % 32));
              }
            }
          }
          const width = shape.scaleType === "f32" ? 32 : 16;
          const each = offset === undefined ? 1 : 2;
          expect(places.size).toBe(paddedRows(shape.rows) * groupCount(shape) * each);
          expect(Math.max(...places) + width).toBeLessThanOrEqual(scaleCount(layout, shape) * 32);
          expect([...places].every((bit) => bit % width === 0)).toBe(true);
        }),
        { numRuns: 40 },
      );
    },
  );
});

/** The code of weight 1, scale 1. */
function codeOfOne(name: (typeof LAYOUT_NAMES)[number]): number {
  const layout = layouts[name];
  if (layout.scaling === "none") return codeOf(layout, 1);
  return layout.scaling === "affine"
    ? 1
    : ([...TABLE.keys()].concat(0x38).find((code) => layout.value(code) === 1) ?? 0);
}

test("affine4 keeps column b in the low and column 4 + b in the high nibble of byte b", () => {
  const shape = { rows: 1, cols: 32, group: 32, scaleType: "f32" } as const;
  const packed = pack(layouts.affine4, shape, {
    code: (_, column) => column % 16,
    scale: () => ({ scale: 1, bias: 0 }),
  });
  expect(packed.words[0]).toBe(0x73625140);
  expect(packed.words[BLOCK_ROWS]).toBe(0xfbead9c8); // the next eight columns of a row are a block's width further
});

test("four neighbouring rows of a block are neighbouring words, and the next block follows whole", () => {
  expect([0, 1, 2, 3].map((row) => runIndex(layouts.affine8, 64, row, 32))).toEqual([256, 257, 258, 259]);
  expect(runIndex(layouts.affine8, 64, BLOCK_ROWS, 0)).toBe(wordCount(layouts.affine8, BLOCK_ROWS, 64));
});
