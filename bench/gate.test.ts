import { describe, expect, test } from "vitest";
import type { CompiledKernel } from "../device/pipelines.ts";
import { allCases } from "../kernels/cases.ts";
import { everyKernel } from "../kernels/kernelList.ts";
import type { Case, Verdict } from "../kernels/testbed.ts";
import { checkProved, mayRun, prove } from "./gate.ts";

const compiled = (name: string, code = "fn main() {}"): CompiledKernel => ({ name, code, bindings: [] });
const caseOf = (title: string): Case => ({ title, kernel: title.split(" ")[0] ?? "", run: async () => [] });

/** A bed whose cases run the kernels that the map says, and fail where they are named. */
function bedOf(runs: Readonly<Record<string, readonly string[]>>, fails: readonly string[] = []) {
  const ran = new Set<string>();
  const titles: string[] = [];
  const check = async ({ title, kernel }: Case): Promise<Verdict> => {
    titles.push(title);
    for (const name of runs[title] ?? []) ran.add(name);
    const passed = !fails.includes(title);
    return { title, kernel, passed, error: 0, limit: 0, milliseconds: 1, why: passed ? "" : "element 3 is NaN" };
  };
  return { ran, titles, check };
}

describe("the gate", () => {
  const kernels = [compiled("embed affine4"), compiled("embed affine8")];
  const named = ["embed affine4/64/f16 rows=1", "embed f16 rows=1", "sample vocab=2"].map(caseOf);
  const all = [...named, ...["embed affine8/32/f32 rows=2", "embed affine8/64/f16 rows=9"].map(caseOf)];
  const runs = { "embed affine4/64/f16 rows=1": ["embed affine4"], "embed affine8/32/f32 rows=2": ["embed affine8"] };

  test("runs the named cases of the kernels, and of all as many as a kernel without one needs", async () => {
    const bed = bedOf(runs);
    const proof = await prove(bed, { kernels, named, all });
    expect(bed.titles).toEqual(["embed affine4/64/f16 rows=1", "embed affine8/32/f32 rows=2"]);
    expect(proof).toMatchObject({ cases: 2, kernels: ["embed affine4", "embed affine8"] });
    expect(proof.hash).toMatch(/^[0-9a-f]{64}$/);
  });

  test("a case that fails ends it, with the case and why", async () => {
    const bed = bedOf(runs, ["embed affine8/32/f32 rows=2"]);
    await expect(prove(bed, { kernels, named, all })).rejects.toThrow(
      "kernel check: embed affine8/32/f32 rows=2 failed: element 3 is NaN; nothing is timed",
    );
  });

  test("a kernel that no case runs is not timed", async () => {
    const bed = bedOf({ "embed affine4/64/f16 rows=1": ["embed affine4"] });
    await expect(prove(bed, { kernels, named, all })).rejects.toThrow("no case runs embed affine8, expected one");
  });

  test("the hash changes with the code of a kernel, and with nothing else", async () => {
    const hash = async (changed: readonly CompiledKernel[]) =>
      (await prove(bedOf(runs), { kernels: changed, named, all })).hash;
    const before = await hash(kernels);
    expect(await hash([...kernels])).toBe(before);
    expect(await hash([compiled("embed affine4", "fn main() { }"), compiled("embed affine8")])).not.toBe(before);
  });
});

test("a kernel that ran unproved is named", () => {
  const proof = { kernels: ["sample", "embed f16"] };
  expect(() => checkProved(["sample"], proof)).not.toThrow();
  expect(() => checkProved(["sample", "softcap"], proof)).toThrow("kernel check: softcap ran unproved");
});

describe("titles and kernels", () => {
  test.each([
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 norm seed=1", "norm_matmul affine4 M=4", true],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 norm seed=1", "norm_matmul affine4 M=8", false],
    ["norm_matmul affine4/64/f16 M=4/1 N=40 K=64 norm seed=1", "norm_matmul affine4 M=4", false],
    ["norm_matmul f16 M=1/1 N=40 K=64 norm seed=1", "norm_matmul bf16 M=1", false],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 bytes,norm seed=1", "norm_matmul affine4 M=4 bytes", true],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 bytes seed=1", "norm_matmul affine4 M=4 halves", false],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 bytes,norm seed=1", "norm_matmul affine4 M=4", false],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 norm seed=1", "norm_matmul affine4 M=4 bytes", false],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 wide,parts=2,norm seed=1", "norm_matmul affine4 M=4 wide", true],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 wide,parts=2 seed=1", "norm_matmul affine4 M=4", false],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 norm seed=1", "norm_matmul affine4 M=4 wide", true],
    ["norm_matmul affine4/64/f16 M=3/4 N=40 K=64 bytes,norm seed=1", "norm_matmul affine4 M=4 wide", false],
    ["narrow bytes 1e5 rows=3 cols=31 seed=2", "narrow bytes", true],
    ["narrow bytes 1e5 rows=3 cols=31 seed=2", "narrow halves", false],
    [
      "attention_paged f16 heads=3/1 head_dim=80 rotary=80 window=none rows=1+2  seed=2",
      "rope_kv f16 head_dim<=128",
      true,
    ],
    [
      "attention_paged f32 heads=3/1 head_dim=80 rotary=80 window=none rows=1+2  seed=2",
      "rope_kv f16 head_dim<=128",
      false,
    ],
    [
      "attention_fused f16 heads=3/1 head_dim=64 rotary=64 window=none rows=1+1  seed=2",
      "attention_reduce head_dim<=64",
      true,
    ],
    [
      "attention_fused f16 heads=3/1 head_dim=65 rotary=64 window=none rows=1+1  seed=2",
      "attention_reduce head_dim<=64",
      false,
    ],
    ["experts tiled affine4 E=3 slots=2", "expert_gate_up affine4 tiled", true],
    ["experts fused affine4 E=3 slots=2", "expert_gate_up affine4 tiled", false],
    ["experts fused affine4 E=3 slots=2", "expert_down e2m1", false],
    ["expert_lists rows=1 slots=1", "expert_lists", true],
    ["experts fused f16 E=3 slots=2", "expert_lists", false],
    ["latent_attention f16 heads=6 latent=512+64 rows=300+1 seed=1", "latent_attention f16 width<=576", true],
    ["latent_attention f16 heads=6 latent=64+16 rows=300+1 seed=1", "latent_attention f16 width<=576", false],
    ["latent_query affine4/32/f16 heads=3 16+16 to 24 rows=9 seed=1", "latent_query affine4 four rows", true],
    ["latent_query affine4/32/f16 heads=3 16+16 to 24 rows=9 seed=1", "latent_query f16", false],
    ["sample vocab=2 ties draws=8", "sample", true],
    ["sample vocab=2 ties draws=8", "pick_rows", false],
  ])("%s · %s: %s", (title, kernel, expected) => expect(mayRun(title, kernel)).toBe(expected));

  test("every kernel that a step has may be run by some case", () => {
    const titles = allCases().map(({ title }) => title);
    const lost = everyKernel().filter(({ name }) => name !== "repack" && !titles.some((title) => mayRun(title, name)));
    expect(lost.map(({ name }) => name)).toEqual([]);
  });
});
