/** The built command, as a user meets it: usage, refusals, JSON, exit codes, signals. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildIfStale, type CommandOptions, command, ENTRY as entry } from "../test/builtCommand.ts";
import { ROOT as root } from "../test/sourceFiles.ts";

const fixtures = join(root, "test/fixtures");
let scratch = "";

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), "ingle-cli-"));
  buildIfStale();
});
afterAll(() => rmSync(scratch, { recursive: true }));

/** Runs the command in the scratch folder. */
const ingle = (words: readonly string[], options: CommandOptions = {}) => command(words, { cwd: scratch, ...options });

const lines = (text: string): unknown[] =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

// Processes of their own that open no adapter: several at once.
describe.concurrent("usage", () => {
  test.each<[string[], string]>([
    [["rnu"], "rnu: there is no such command; did you mean run?"],
    [["eval"], "eval: is not supported yet; there are run, score"],
    [["--json"], "--json: there is no such flag before a command"],
    [["run", "--temprature", "1", "x"], "--temprature: there is no such flag; did you mean --temperature?"],
    [
      ["run", "--draft-tokens", "4", "y"],
      "--draft-tokens: nobody proposes tokens; add --draft MODEL or --prompt-lookup",
    ],
    [
      ["run", "--prompt-lookup", "--draft-tokens", "17", "y"],
      '--draft-tokens: is "17", expected a whole number from 1',
    ],
    [["run", "--draft", "", "y"], "--draft: is empty"],
    [["run", "--repeat-penalty", "x", "y"], '--repeat-penalty: is "x", expected a number above 0, at most 1000'],
    [["run", "--presence-penalty", "-3", "y"], '--presence-penalty: is "-3", expected a number from -2 to 2'],
    [["run", "--frequency-penalty", "2.5", "y"], '--frequency-penalty: is "2.5", expected a number from -2 to 2'],
    [["run", "--typical-p", "0", "y"], '--typical-p: is "0", expected a number above 0, at most 1'],
    [["run", "--logit-bias", "a=1", "y"], '--logit-bias: is "a=1", expected ID=BIAS, a bias from -100 to 100'],
    [["run", "--logit-bias", "5=101", "y"], '--logit-bias: is "5=101", expected ID=BIAS'],
    [["run", "--allowed-ids", "1;2", "y"], '--allowed-ids: is "1;2", expected ids such as 1,2,3'],
    [["run", "--bad-word", "", "y"], "--bad-word: is empty, expected a text"],
    [["run", "--min-tokens", "-1", "y"], '--min-tokens: is "-1", expected a whole number from 0'],
    [["run", "--prompt-logprobs", "2", "x"], "--prompt-logprobs: is shown in JSON only; add --json"],
    [["run", "--precision", "int4", "y"], '--precision: is "int4", expected auto or f32 or f16 or int8'],
    [["run", "--kv-type", "int4", "y"], '--kv-type: is "int4", expected f16 or f32 or int8'],
    [["run", "-o", "csv", "y"], '--output: is "csv", expected table or json'],
    [["run", "once", "upon"], "PROMPT: 2 words are given apart, expected one; put them in quotes"],
    [["run"], "PROMPT: is not given, and nothing came from stdin"],
    [["run", "--tokens", "1,x"], '--tokens: is "1,x", expected ids such as 1,2,3'],
    [["run", "--tokens-file", "none.jsonl"], "--tokens-file none.jsonl: cannot be read (ENOENT)"],
    [["run", "--raw", "--system", "be kind", "x"], "--system: has no place with --raw"],
    [["run", "--logprobs", "2", "x"], "--logprobs: is shown in JSON only; add --json"],
    [["score"], "score: nothing to score, expected --text"],
    [["score", "--text", ""], "score: the text is empty, expected at least one token"],
    [["score", "--text", "a", "--tokens", "1"], "--text and --tokens: only one of them may be given"],
    [["score", "--lora", "x", "--text", "a"], "--lora: is not supported yet; merge the adapter into the model first"],
    [["serve", "--lora", "x"], "--lora: is not supported yet; merge the adapter into the model first"],
    [["run", "--json-schema", "x", "y"], "--json-schema: is not supported yet; answers are not constrained"],
    [["run", "-c", "1", "y"], '--context: is "1", expected a whole number from 2'],
    [["inspect"], "MODEL: is not given"],
    [["kernels", "--filter", "nothing like it"], '--filter: no title has "nothing like it" in it'],
    [["kernels", "matmul"], "matmul: kernels takes no names; did you mean --filter matmul?"],
  ])("%j: exit code 2 and one line", async (words, message) => {
    const { code, stdout, stderr } = await ingle(words);
    expect(stderr).toContain(`ingle: ${message}`);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect([code, stdout]).toEqual([2, ""]);
  });

  test("a line of --tokens-file that holds no ids is named", async () => {
    writeFileSync(join(scratch, "bad.jsonl"), "[1, 2]\n\n[1, -2]\n");
    const { code, stderr } = await ingle(["score", "--tokens-file", "bad.jsonl"]);
    expect(stderr).toBe("ingle: bad.jsonl:3: expected a JSON array of token ids such as [1, 2, 3]\n");
    expect(code).toBe(2);
  });

  test("--help and --version print to stdout", async () => {
    for (const words of [["--help"], ["run", "--help"], ["help", "score"], ["kernels", "-h"]]) {
      const { code, stdout, stderr } = await ingle(words);
      expect(stdout).toContain("usage: ingle");
      expect([code, stderr]).toEqual([0, ""]);
    }
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
    expect((await ingle(["--version"])).stdout).toBe(`ingle ${version}\n`);
  });
});

describe("--precision", () => {
  test.each(["run", "score", "bench"])("is in the help of %s", async (command) => {
    const { stdout } = await ingle([command, "--help"]);
    expect(stdout).toContain("--precision auto|f32|f16|int8");
  });

  test("f16 is refused where the adapter has none, and nothing is loaded", async () => {
    const { code, stdout, stderr } = await ingle([
      "score",
      "--precision",
      "f16",
      "--adapter",
      "swiftshader",
      "--text",
      "a",
    ]);
    expect(stderr).toMatch(
      /^ingle: precision f16: adapter "SwiftShader[^"]*" has no shader-f16, expected one that has; /m,
    );
    expect([code, stdout]).toEqual([1, ""]);
  });
});

describe("inspect", () => {
  test("one file as JSON", async () => {
    const { code, stdout } = await ingle(["inspect", join(root, "models/default/model.safetensors"), "--json"]);
    const [report] = lines(stdout) as { tensors: unknown[]; metadata: object }[];
    expect(code).toBe(0);
    expect(Object.keys(report ?? {})).toEqual(["tensors", "metadata"]);
    expect(report?.tensors).toContainEqual({
      name: "model.norm.weight",
      dtype: "F16",
      shape: [256],
      bytes: 512,
    });
  });

  test("a broken file is one line on stderr", async () => {
    const { code, stdout, stderr } = await ingle([
      "inspect",
      join(fixtures, "malformed/cut_half.safetensors"),
      "--json",
    ]);
    expect(stderr).toMatch(/^ingle: .*cut_half\.safetensors: .*\n$/);
    expect([code, stdout]).toEqual([1, ""]);
  });

  test("a model's folder: what it is, or why it would not load", async () => {
    const { code, stdout } = await ingle(["inspect", "default", "--json", "-c", "100"]);
    const [report] = lines(stdout) as (Record<"matrices" | "vectors" | "tensors", Record<string, unknown>[]> & {
      architecture: string;
      memory: object;
    })[];
    expect([code, report?.architecture]).toEqual([0, "qwen3_moe"]);
    // 4 layers of 4 heads of 32, keys and values: 1,024 numbers a token.
    const kv = { f16: 100 * 1024 * 2, f32: 100 * 1024 * 4, int8: 100 * (1024 + 4 * 4 * 2 * 4) }; // and a scale a vector
    expect(report?.memory).toMatchObject({ context: 100, kv });
    const { matrices = [], vectors = [], tensors = [] } = report ?? {};
    expect(matrices[0]).toMatchObject({
      format: "mlx 8 bits, groups of 64",
      layout: "affine8/64",
      bits_per_weight: 8.5,
    });
    const plain = { name: "model.norm.weight", format: "F16", layout: "f32", bits_per_weight: 32, bytes: 4 * 256 };
    expect(vectors).toContainEqual({ ...plain, elements: 256 });
    expect(tensors.filter(({ shape }) => (shape as number[]).length === 1)).toHaveLength(vectors.length);
    const table = (await ingle(["inspect", "default"])).stdout.split("\n");
    expect(table.filter((line) => / affine4\/64 /.test(line)).length).toBeGreaterThan(8);
    expect(table.at(-3)).toMatch(/^17 norms, biases and others +F16 +f32 +2560 +32\.00 +10 KiB$/);
    const refused = await ingle(["inspect", join(fixtures, "checkpoints/no-safetensors")]);
    expect([refused.code, refused.stdout]).toEqual([1, ""]);
  });

  test("a file that is not there", async () => {
    const { code, stderr } = await ingle(["inspect", "nowhere.safetensors"]);
    expect([code, stderr]).toEqual([1, "ingle: nowhere.safetensors: no such file\n"]);
  });

  test("--strict finds a NaN, and names its tensor", async () => {
    const header = JSON.stringify({ "bad.weight": { dtype: "F32", shape: [2], data_offsets: [0, 8] } }).padEnd(72);
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(72n);
    const data = Buffer.from(new Float32Array([1, Number.NaN]).buffer);
    writeFileSync(join(scratch, "nan.safetensors"), Buffer.concat([length, Buffer.from(header), data]));
    expect((await ingle(["inspect", "nan.safetensors"])).code).toBe(0);
    const { code, stderr } = await ingle(["inspect", "nan.safetensors", "--strict"]);
    expect(stderr).toBe(
      "ingle: bad.weight: 1 of 2 values are NaN or infinite, expected numbers; do not use this file\n",
    );
    expect(code).toBe(1);
  });
});

// Each is a process that compiles its kernels, which takes most of its time and one core.
describe.concurrent("the model that ships with ingle", () => {
  test("two prompts at once: token events, then how each ended", async () => {
    const words = ["run", "--json", "--tokens", "601,690", "--tokens", "601", "-n", "3", "--temperature", "0"];
    const { code, stdout, stderr } = await ingle([...words, "--ignore-eos", "--logprobs", "2"]);
    expect(code, stderr).toBe(0);
    const events = lines(stdout) as Record<string, unknown>[];
    for (const prompt of [0, 1]) {
      const own = events.filter((event) => event.prompt === prompt);
      expect(own.map(({ type, index }) => [type, index])).toEqual([
        ["token", 0],
        ["token", 1],
        ["token", 2],
        ["done", undefined],
      ]);
      expect(own[0]).toEqual({
        type: "token",
        prompt,
        index: 0,
        id: expect.any(Number),
        text: expect.any(String),
        logprob: expect.any(Number),
        top: [{ token: own[0]?.id, logprob: own[0]?.logprob }, expect.anything()],
      });
      expect(own[3]).toMatchObject({
        finish_reason: "length",
        usage: { prompt_tokens: 2 - prompt, completion_tokens: 3, total_tokens: 5 - prompt },
        timings: { prompt_ms: expect.any(Number), tokens_per_second: expect.any(Number) },
      });
    }
    // "Once upon" goes on with " a"; both prompts see the same text.
    expect(events.filter(({ prompt, type }) => prompt === 0 && type === "token").map(({ text }) => text)).toEqual([
      " a",
      " time",
      ",",
    ]);
  });

  test("score: one object, as documented, and logits that agree with it", async () => {
    const words = ["score", "--text", "Once upon a time", "--top", "2", "--full", "logits.safetensors", "--json"];
    const { code, stdout, stderr } = await ingle(words);
    expect(code, stderr).toBe(0);
    const [got] = lines(stdout) as {
      tokens: number[];
      logprobs: (number | null)[];
      top: ({ token: number; logprob: number }[] | null)[];
      perplexity: number;
    }[];
    if (got === undefined) throw new Error("score printed nothing");
    expect(Object.keys(got).sort()).toEqual(
      ["adapter", "logprobs", "model", "perplexity", "texts", "tokens", "top", "weights"].sort(),
    );
    expect(got).toMatchObject({
      model: "default",
      tokens: [601, 690, 262, 446],
      texts: ["Once", " upon", " a", " time"],
      weights: "affine4/64",
    });
    expect(got.top.map((best) => best?.length)).toEqual([undefined, 2, 2, 2]);
    const rest = got.logprobs.slice(1).map((value) => value ?? Number.NaN);
    expect(got.perplexity).toBeCloseTo(Math.exp(-rest.reduce((a, b) => a + b, 0) / rest.length), 6);
    const file = readFileSync(join(scratch, "logits.safetensors"));
    const begin = 8 + Number(file.readBigUInt64LE(0));
    expect(file.length - begin).toBe(4 * 2048 * 4);
    const row = Array.from({ length: 2048 }, (_, i) => file.readFloatLE(begin + 4 * i));
    const sum = Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0));
    expect((row[690] ?? Number.NaN) - sum).toBeCloseTo(rest[0] ?? Number.NaN, 4);
  });

  test("a reader that closes the pipe ends the work quietly", async () => {
    const words = ["run", "--model", "default-draft", "--json", "--ignore-eos", "Once upon a time"];
    const child = spawn(process.execPath, [entry, ...words], { stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.stdout.once("data", () => child.stdout.destroy());
    const code = await new Promise((resolve) => child.on("close", resolve));
    expect(stderr).not.toMatch(/EPIPE|ingle:|^\s+at /m);
    expect(code).toBe(0);
  });

  test("Ctrl-C ends an answer cleanly: exit code 130 and how far it came", async () => {
    let sent = false;
    const words = ["run", "--model", "default-draft", "--json", "--ignore-eos", "Once upon a time"];
    const { code, stdout } = await ingle(words, {
      onStdout: (text, kill) => {
        if (sent || !text.includes("\n")) return;
        sent = true;
        kill();
      },
    });
    expect(code).toBe(130);
    const events = lines(stdout) as Record<string, unknown>[];
    expect(events.at(-1)).toMatchObject({
      type: "done",
      finish_reason: "abort",
      usage: { prompt_tokens: 12, completion_tokens: events.length - 1 }, // behind the chat template
    });
  });
});
