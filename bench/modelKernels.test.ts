import { describe, expect, test } from "vitest";
import type { AdapterDescription } from "../device/adapters.ts";
import type { Precision } from "../kernels/xFrom.ts";
import { modelKernels } from "./modelKernels.ts";

const adapter = { kind: "software", name: "llvmpipe" } as AdapterDescription;
/** What a Llama's first steps launch, by family. */
const LAUNCHED = new Set(
  ["embed", "norm_matmul", "norm_gate_up", "matmul_residual", "attention_fused", "sample", "narrow"].map(
    (name) => `${name} x`,
  ),
);
const names = (
  layouts: readonly ("affine4" | "affine8" | "f16")[],
  headDim: number,
  of: AdapterDescription = adapter,
  features: readonly string[] = [],
  precision: Precision = "f32",
  cols = 576,
) =>
  modelKernels({
    matrices: layouts.map((layout) => ({ layout, cols })),
    caches: [{ kind: "pages", headDim }],
    kvType: "f32",
    precision,
    gpu: { adapter: of, features: new Set(features), off: new Set() },
    launched: LAUNCHED,
  }).map(({ name }) => name);

describe("the kernels of a model", () => {
  test("are of its layouts, KV type, head size and rows, and none of another", () => {
    const found = names(["affine4", "affine8"], 64);
    expect(found).toEqual(
      expect.arrayContaining([
        "norm_matmul affine4 M=1",
        "norm_matmul affine8 M=4",
        "norm_gate_up affine4 M=4",
        "matmul_residual affine4 M=1",
        "attention_fused f32 head_dim<=64",
        "attention_paged f32 head_dim<=64",
        "rope_kv f32 head_dim<=64",
        "attention_reduce",
        "embed affine8",
        "pick_rows",
        "sample",
      ]),
    );
    const others = /f16|M=2|M=8|own sums|head_dim<=(128|256)|log_probs|repack|expert|router|softcap/;
    expect(found.filter((name) => others.test(name))).toEqual([]);
  });

  test("a layout and a KV type of one name are told apart", () => {
    const found = names(["f16"], 64);
    expect(found).toContain("norm_matmul f16 M=1");
    expect(found.filter((name) => /^(attention|rope)_\w+ f16/.test(name))).toEqual([]);
  });

  test("sums of attention that are no whole runs need the matmul that adds its own", () => {
    expect(names(["affine4"], 48)).toContain("matmul_residual affine4 M=1 own sums");
  });

  test("of latents there is one attention, of the length of their keys", () => {
    const found = modelKernels({
      matrices: [{ layout: "f16", cols: 576 }],
      caches: [{ kind: "pages", headDim: 576, valueDim: 0 }],
      kvType: "f32",
      precision: "f32",
      gpu: { adapter, features: new Set(), off: new Set() },
      launched: new Set(["latent_attention x", "latent_kv x", "latent_query x", "latent_value x"]),
    }).map(({ name }) => name);
    expect(found).toEqual(
      expect.arrayContaining([
        "latent_attention f32 width<=576",
        "latent_kv f32",
        "latent_query f16",
        "latent_query f16 four rows",
        "latent_value f16",
      ]),
    );
    const others = /width<=128|broadcast|latent_(attention|kv) f16|latent_(query|value) f32|head_dim/;
    expect(found.filter((name) => others.test(name))).toEqual([]);
  });

  test("where eight lanes share their loads, matmuls are those that do", () => {
    const lanes = { ...adapter, subgroupMinSize: 8, subgroupMaxSize: 8 };
    const found = names(["affine4"], 64, lanes, ["subgroups"]);
    expect(found).toContain("norm_matmul affine4 M=4 broadcast");
    expect(found).not.toContain("norm_matmul affine4 M=4");
    expect(names(["affine4"], 64, lanes)).toContain("norm_matmul affine4 M=4");
  });

  test.each([
    [2048, ["M=1 broadcast", "M=4 broadcast", "M=8 broadcast"]],
    [2080, ["M=1 broadcast", "M=4 broadcast"]],
    [8192, ["M=1 broadcast", "M=2 broadcast"]],
    [16384, ["M=1 broadcast"]],
    [16416, ["M=1", "M=4"]],
  ])("rows of %i columns are taken as a window has room for them", (cols, ways) => {
    const lanes = { ...adapter, subgroupMinSize: 8, subgroupMaxSize: 8 };
    const found = names(["affine4"], 64, lanes, ["subgroups"], "f32", cols);
    expect(found.filter((name) => name.startsWith("norm_matmul "))).toEqual(
      ways.map((way) => `norm_matmul affine4 ${way}`),
    );
  });

  test("with another precision, matrices of codes take narrow activations and the others do not", () => {
    const found = names(["affine4", "f16"], 48, adapter, [], "int8");
    const matmuls = found.filter((name) => / M=1/.test(name));
    const kinds = ["norm_matmul", "norm_gate_up", "matmul_residual"];
    const wanted = kinds.flatMap((kind) => [`${kind} affine4 M=1 bytes`, `${kind} f16 M=1`]);
    expect(matmuls.toSorted()).toEqual(wanted.toSorted());
    expect(found.filter((name) => name.startsWith("narrow"))).toEqual(["narrow bytes"]);
    expect(names(["affine4"], 48).filter((name) => /bytes|halves/.test(name))).toEqual([]);
  });

  test("a hardware adapter takes 2 and 8 rows at once too, all in wide workgroups", () => {
    const found = names(["affine4"], 64, { ...adapter, kind: "hardware" });
    expect(found).toEqual(expect.arrayContaining(["norm_matmul affine4 M=2 wide", "norm_matmul affine4 M=8 wide"]));
    expect(found.filter((name) => / M=/.test(name) && !name.endsWith(" wide"))).toEqual([]);
    expect(found).toContain("attention_fused f32 head_dim<=64 wide");
  });
});
