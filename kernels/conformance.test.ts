import { describe, expect, test } from "vitest";
import { chosenAdapters } from "../device/gpu.ts";
import { allCases, findCase, namedCases } from "./cases.ts";
import { type ConformanceOptions, type ConformanceReport, casesOf, runConformance } from "./conformance.ts";
import { everyKernel } from "./kernelList.ts";
import { type Case, nmse } from "./testbed.ts";
import { xFrom } from "./xFrom.ts";

const FULL = process.env.INGLE_SUITE === "full";

/** What a person needs to try a failed case again. */
function failures({ adapter, cases }: ConformanceReport): string[] {
  return cases
    .filter(({ passed }) => !passed)
    .map(
      ({ title, why }) =>
        `${title}\n  ${why}\n  again: ingle kernels --all --adapter "${adapter.name}" --filter "${title}"`,
    );
}

async function proved(options: ConformanceOptions): Promise<ConformanceReport> {
  const report = await runConformance(options);
  const { adapter, suite, limits, cases, passed, pipelines, milliseconds } = report;
  console.log(
    `${adapter.name}, limits ${String(limits)}: ${passed} of ${cases.length} cases (${suite}) passed, ${pipelines} pipelines, ${Math.round(milliseconds)} ms`,
  );
  return report;
}

describe("the list of cases", () => {
  const [named, all] = [namedCases(), allCases()];
  const titles = (cases: readonly Case[]) => cases.map(({ title }) => title);

  test("has 300 to 550 named cases and more than 1,000 in all, the named ones among them", () => {
    expect(named.length).toBeGreaterThanOrEqual(300);
    expect(named.length).toBeLessThanOrEqual(550);
    expect(all.length).toBeGreaterThanOrEqual(1000);
    expect(titles(all)).toEqual(expect.arrayContaining(titles(named)));
  });

  test("gives no title twice, and each one names its seed", () => {
    expect(new Set(titles(all)).size).toBe(all.length);
    expect(titles(all).filter((title) => !/ seed=\d+( |$)/.test(title))).toEqual([]);
  });

  test("finds a case by its title, and says so where there is none", () => {
    for (const { title } of all.filter((_, i) => i % 200 === 0)) {
      expect(findCase(title).title).toBe(title);
      expect(casesOf("all", title).map((it) => it.title)).toEqual([title]);
    }
    expect(() => findCase("no such case")).toThrow('none is titled "no such case"');
    expect(() => casesOf("named", "no such kernel")).toThrow('no title of the named suite has "no such kernel" in it');
  });
});

test("kernels bind at most 8 storage buffers, and no two share a name", () => {
  const kernels = everyKernel();
  expect(new Set(kernels.map(({ name }) => name)).size).toBe(kernels.length);
  expect(kernels.filter(({ bindings }) => bindings.filter((it) => it !== "uniform").length > 8)).toEqual([]);
});

test("an error has no length to hide behind", () => {
  expect(nmse([1, 2], [1, 2])).toBe(0);
  expect(nmse([1], [1, 2])).toBeNaN();
  expect(nmse([1, Number.NaN], [1, 2])).toBeNaN();
});

/** What the cases must run; repacking is proved where weights are loaded. */
const stepKernels = everyKernel()
  .map(({ name }) => name)
  .filter((name) => name !== "repack");
/**
 * The named cases leave out `advance` and `verify`, some numbers of rows of some layouts, their experts, and the longest heads, of f32 and int8 long ones too; of layouts that differ from others in their decoding
 * alone, all but one matmul and the embedding.
 */
const leanVariants = stepKernels.filter(
  (name) =>
    !/ broadcast|(f32|int8) head_dim<=128|M=\d (bytes|halves)|M=\d wide|head_dim<=256|width<=576|own sums|(f32|bf16) M=8|(f32|bf16|affine8) M=[24]|(router|expert_\w+|latent_(query|value)) (f32|bf16|affine8)|latent_(query|value) f16|^(advance|verify)$/.test(
      name,
    ) &&
    (!/ (affine[2356]|e2m1|e4m3|codebook4)/.test(name) || /^norm_matmul \w+ M=1$|^embed /.test(name)),
);
const adapters = await chosenAdapters(); // throws where there is none

describe.each(adapters)("on $name", ({ name: adapter, ...description }) => {
  const features = new Set(description.features);
  /** How x reaches lanes as models run on it, and queries where lanes give them to each other. */
  const from = xFrom({ adapter: { ...description, name: adapter }, features, off: new Set() });

  test.runIf(from === "broadcast" && !FULL)(
    "the named cases pass as models run on it",
    { timeout: 2_400_000 },
    async () => {
      const report = await proved({ adapter });
      expect(failures(report)).toEqual([]);
      expect(report.kernels.filter((name) => name.endsWith(" broadcast"))).not.toEqual([]);
    },
  );

  test.runIf(from === "broadcast4" && !FULL)(
    "matmuls and attention pass as models run them on subgroups of four",
    { timeout: 600_000 },
    async () => {
      // Attention's bits as without, which the other cases prove.
      const parts = ["norm_matmul", "norm_gate_up", "matmul_residual", "attention_paged", "same_bits attention"];
      const found = new Set<string>();
      for (const filter of parts) {
        const report = await proved({ adapter, filter });
        expect(failures(report)).toEqual([]);
        for (const name of report.kernels) found.add(name);
      }
      const attentions = stepKernels.filter((name) => name.endsWith("head_dim<=64 broadcast4"));
      const matmuls = leanVariants.filter((name) => parts.includes(name.replace(/ .*/, "")));
      expect([attentions.length, matmuls.length]).toEqual([6, 47]);
      const listed = [...attentions, ...matmuls.map((name) => `${name} broadcast4`)];
      expect(listed.filter((name) => !found.has(name))).toEqual([]);
    },
  );

  test("the named cases pass with WebGPU's default limits and no feature", { timeout: 2_400_000 }, async () => {
    const report = await proved({ adapter, limits: "default", features: "none" });
    expect(failures(report)).toEqual([]);
    expect(report.pipelines).toBeLessThanOrEqual(120);
    expect(leanVariants.filter((name) => !report.kernels.includes(name))).toEqual([]);
    expect(report.kernels.filter((name) => / M=\d wide$/.test(name))).toEqual(
      [1, 8].flatMap((m) =>
        ["norm_matmul", "norm_gate_up", "matmul_residual"].map((name) => `${name} affine4 M=${m} wide`),
      ),
    );
    expect(report.features.filter((it) => ["shader-f16", "subgroups", "timestamp-query"].includes(it))).toEqual([]);
  });

  test.runIf(FULL)("all cases pass", { timeout: 7_200_000 }, async () => {
    const report = await proved({ adapter, suite: "all" });
    expect(failures(report)).toEqual([]);
    // A kernel that never ran did not pass. Of those that x reaches in two ways, the one that the adapter is not given runs in a few cases only.
    const given = stepKernels.filter((name) => {
      if (/ M=\d halves$/.test(name)) return report.features.includes("shader-f16");
      if (/ broadcast4?$/.test(name) && !name.endsWith(` ${from}`)) return false;
      return !stepKernels.includes(`${name} ${from}`) || report.kernels.includes(name);
    });
    expect(report.kernels).toEqual(given);
  });

  test("a report cites what ran: the same for the same, another for others", async () => {
    const once = (filter: string) => runConformance({ adapter, filter });
    const [a, b, c] = [await once("pick_rows"), await once("pick_rows"), await once("pick_rows rows=1 ")];
    expect(a.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(b.hash).toBe(a.hash);
    expect(c.hash).not.toBe(a.hash);
    expect(a.passed + a.failed).toBe(a.cases.length);
  });

  test("stops where its signal says, with the signal's reason", async () => {
    const controller = new AbortController();
    let seen = 0;
    const onVerdict = () => {
      seen++;
      controller.abort(new Error("enough"));
    };
    await expect(
      runConformance({ adapter, filter: "pick_rows", onVerdict, signal: controller.signal }),
    ).rejects.toThrow("enough");
    expect(seen).toBe(1);
  });
});
