import { afterEach, describe, expect, test, vi } from "vitest";
import { bench } from "./bench.ts";
import { parseFlags } from "./flags.ts";
import { kernels } from "./kernels.ts";
import { COMMON_FLAGS } from "./modelFlags.ts";
import { Reporter } from "./progress.ts";
import { version } from "./version.ts";

const FULL = process.env.INGLE_SUITE === "full";
const context = { reporter: new Reporter({ quiet: true, verbose: false }), signal: new AbortController().signal };

/** Runs the command in this process; what it prints, and its exit code. */
async function run(command: typeof bench, words: readonly string[]) {
  let stdout = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    stdout += String(text);
    return true;
  });
  const code = await command.run(parseFlags(words, { ...command.flags, ...COMMON_FLAGS }, command.planned), context);
  return { code, stdout };
}
afterEach(() => vi.restoreAllMocks());

describe("usage of bench", () => {
  test.each<[string[], string]>([
    [["default"], "default: bench takes no names; did you mean -m default?"],
    [["-p", "12x"], '--prompt-tokens: is "12x", expected whole numbers from 0 such as 1,4'],
    [["-b", "0"], '--batch: is "0", expected whole numbers from 1 such as 1,4'],
    [["-n", "1,,2"], '--max-tokens: is "1,,2", expected whole numbers from 0'],
    [["-p", "0", "-n", "0"], "-p 0 and -n 0: there is nothing to measure"],
    [["-r", "0"], '--repetitions: is "0", expected a whole number from 1 to 1000'],
    [["-o", "xml"], '--output: is "xml", expected table or md or csv or json or jsonl'],
    [["--json", "-o", "csv"], "--json and --output csv: only one may be given"],
    [["--precision", "bf16"], '--precision: is "bf16", expected auto or f32 or f16 or int8'],
  ])("%j is refused before an adapter is opened", async (words, message) => {
    await expect(run(bench, words)).rejects.toThrow(message);
  });

  test("there is no way past the kernel check", () => {
    expect(Object.keys(bench.flags).filter((name) => /check|gate|verify/.test(name))).toEqual([]);
  });
});

describe("usage of kernels --perf", () => {
  test.each<[string[], string]>([
    [["--perf", "--filter", "no such op"], '--filter: no op has "no such op" in it, expected part of qkv_proj, o_proj'],
    [["--perf", "--all"], "--perf and --all: only one of them may be given"],
    [["--perf", "--list"], "--perf and --list: only one of them may be given"],
  ])("%j is refused", async (words, message) => {
    await expect(run(kernels, words)).rejects.toThrow(message);
  });
});

test("the version is the package's", () => expect(version()).toMatch(/^\d+\.\d+\.\d+/));

/** What the tests below read of the JSON. */
interface Printed {
  readonly conditions: Readonly<Record<string, unknown>> & { readonly checks: { readonly hash: string } };
  readonly rows: readonly {
    readonly test: string;
    readonly batch: number;
    readonly error: string | null;
    readonly computed_tokens: number;
    readonly cached_tokens: number;
    readonly speed: { readonly tokens_per_second: { readonly samples: readonly number[] } } | null;
  }[];
}

// The adapter is SwiftShader, that every machine has, or the one that is chosen for all tests.
describe.runIf(FULL)("bench of the default model", () => {
  const adapter = ["--adapter", process.env.INGLE_ADAPTER ?? "swiftshader"];
  const tiny = [...adapter, "-p", "20", "-n", "3", "-d", "0,32", "-b", "1,2", "-r", "2"];

  test("measures every test, computes every prompt token and meets no cache", { timeout: 600_000 }, async () => {
    const { code, stdout } = await run(bench, [...tiny, "--json"]);
    const { conditions, rows }: Printed = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(conditions).toMatchObject({
      model: "default",
      seed: 1,
      kv_type: "f16",
      ingle: version(),
      node: process.version,
    });
    expect(conditions.checks.hash).toMatch(/^[0-9a-f]{64}$/);
    const told = rows.map(({ test: name, batch, error, computed_tokens, cached_tokens }) => {
      return [name, batch, error, computed_tokens, cached_tokens];
    });
    expect(told).toEqual([
      ["pp20", 1, null, 2 * 20, 0],
      ["tg3", 1, null, 2 * 1, 0],
      ["pp20@d32", 1, null, 2 * 20, 0],
      ["tg3@d32", 1, null, 2 * 32, 0],
      ["pp20", 2, null, 4 * 20, 0],
      ["tg3", 2, null, 4 * 1, 0],
      ["pp20@d32", 2, null, 4 * 20, 0],
      ["tg3@d32", 2, null, 4 * 32, 0],
    ]);
    for (const { speed } of rows) expect(speed?.tokens_per_second.samples).toHaveLength(2);
  });

  test("fails a row that passes the context, and the command with it", { timeout: 600_000 }, async () => {
    const { code, stdout } = await run(bench, [
      ...adapter,
      "-p",
      "20,200",
      "-n",
      "0",
      "-c",
      "100",
      "-r",
      "1",
      "-o",
      "csv",
    ]);
    expect(code).toBe(1);
    const [head, fits, passes] = stdout.split("\n");
    expect(head).toContain("model,size,params,backend,adapter,weights,kv,batch,test,t/s");
    expect(fits).toMatch(/,pp20,[\d.]+ ± 0\.00,/);
    expect(passes).toContain(",pp200,failed,");
  });
});
