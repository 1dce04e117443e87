import { expect, test } from "vitest";
import { OutOfMemoryError } from "../device/errors.ts";
import type { Gpu } from "../device/gpu.ts";
import type { KvType } from "../kernels/attention/kv_types.ts";
import type { CacheDeclaration } from "../models/model.ts";
import { cacheGroups } from "./cacheGroups.ts";
import { checkKvType, kvTypesOf } from "./kvType.ts";
import { type MemoryWishes, planMemory } from "./memoryPlan.ts";
import { pageBytes } from "./pageSizes.ts";

const MIB = 2 ** 20;
const layer = (headDim: number, valueDim = headDim): CacheDeclaration => ({
  kind: "pages",
  kvHeads: 2,
  headDim,
  valueDim,
  window: null,
});
const layers = [layer(64), layer(64)];
const state: CacheDeclaration = { kind: "state", bytes: 1024 };

/** A plan on an adapter whose buffers may have as many bytes. */
function plan(limit: number, wishes: Partial<MemoryWishes> = {}, caches: readonly CacheDeclaration[] = layers) {
  const limits = { maxStorageBufferBindingSize: limit, maxBufferSize: limit };
  const gpu = { limits, adapter: { name: "a test" } } as Gpu;
  const kvType = "f16";
  const others = { context: undefined, kvMemory: undefined, sequences: 4, rotaryDims: [64] };
  return planMemory(gpu, { caches, groups: cacheGroups(caches) }, 0, 4096, {
    kvType,
    ...others,
    positions: Number.POSITIVE_INFINITY,
    ...wishes,
  });
}

test("a token takes what its vectors take, and their scales", () => {
  const token = (kvType: KvType) => pageBytes([layer(64)], kvType) / 16;
  expect(token("f32")).toBe(2 * 2 * 64 * 4);
  expect(token("f16")).toBe(2 * 2 * 64 * 2);
  expect(token("int8")).toBe(2 * 2 * (64 + 4));
  expect(plan(MIB, { kvType: "int8" }).kvBytesPerToken).toBe(2 * token("int8"));
});

test("the longest context that fits is what one layer's pages, --kv-memory and the model's positions leave", () => {
  const bound = (kvType: KvType) => 16 * Math.floor(MIB / pageBytes([layer(64)], kvType));
  const long = { rotaryDims: [2], context: 16 };
  for (const kvType of ["f32", "f16", "int8"] as const) {
    expect(plan(MIB, { ...long, kvType })).toMatchObject({ context: 16, longest: bound(kvType) });
    expect(plan(MIB, { ...long, kvType, kvMemory: MIB / 4 }).longest).toBe(
      16 * Math.floor(MIB / 4 / pageBytes(layers, kvType)),
    );
  }
  expect(plan(MIB, { ...long, positions: 600 }).longest).toBe(600);
  expect(plan(MIB, { context: 16 }).longest).toBe(bound("f16")); // 2,048
  expect(plan(MIB / 4, { rotaryDims: [512], context: 16 }).longest).toBe(MIB / 4 / 4 / 512 - 64); // rows of the rope table
});

test("what is too long is refused with what fits, and with the types of which more would", () => {
  const refused = (wishes: Partial<MemoryWishes>) => () => plan(MIB, { rotaryDims: [2], context: 5000, ...wishes });
  expect(refused({})).toThrow(OutOfMemoryError);
  expect(refused({})).toThrow(/5000 tokens, .*; try --context 2048, or --kv-type int8 with up to 3840$/);
  expect(refused({ kvType: "f32" })).toThrow(
    /; try --context 1024, or --kv-type f16 with up to 2048, or --kv-type int8 with up to 3840$/,
  );
  expect(refused({ kvType: "int8" })).toThrow(/; try --context 3840$/);
});

test("int8 is not for latents, nor for heads that are no whole words; states do not mind", () => {
  expect(kvTypesOf([layer(64), state])).toEqual(["f16", "f32", "int8"]);
  expect(kvTypesOf([layer(64), layer(576, 0)])).toEqual(["f16", "f32"]);
  expect(kvTypesOf([layer(6)])).toEqual(["f16", "f32"]);
  expect(() => checkKvType([layer(64), layer(64, 30)], "int8")).toThrow(
    "--kv-type int8: layer 1 has heads of 30, no multiple of 4, expected f16 or f32",
  );
  expect(() => checkKvType([state, layer(576, 0)], "f16")).not.toThrow();
});
