/** Models against transformers in f32: every logit, and what greedy says. */
import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { EngineOptions } from "../engine/options.ts";
import { distance, type Expected, logitsOf, readExpected } from "./expected.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";

const FIXTURES = new URL("./fixtures/", import.meta.url);
const FULL = process.env.INGLE_SUITE === "full";
/**
 * Biases and GQA; a rope that depends on the length of the pass; bf16 in shards; norms on both sides and two ropes; blocks at once and
 * LayerNorm; learned positions; experts beside a shared one, and with biases; latents and experts; convolutions that keep a state. The rest
 * runs in the full suite.
 */
const SHORT = [
  "llama-bias",
  "llama-longrope",
  "llama-bf16-sharded",
  "gemma3_text",
  "phi",
  "gpt2",
  "qwen2_moe",
  "gpt_oss",
  "deepseek_v3",
  "lfm2",
];

/** Of a trained model's greedy tokens, those that the short suite asks for. */
const TRAINED = FULL ? 128 : 48;

/** Largest distance of a log-probability that f32 may have. */
const F32 = 1e-3;

const device = await sharedDevice();
const folder = (name: string) => new URL(`${name}/`, FIXTURES);
const f32: EngineOptions = { device, precision: "f32", kvType: "f32" };

function get(expected: ReadonlyMap<string, Expected>, name: string): Expected {
  const tensor = expected.get(name);
  if (tensor === undefined) throw new RangeError(`expected.safetensors: has no ${name}`);
  return tensor;
}

/** Rows of (S, T, V) for one S. */
const rowsOf = (tensor: Expected, s: number): readonly (readonly number[])[] =>
  Array.from({ length: tensor.shape[1] ?? 0 }, (_, t) => tensor.row(s, t));

/** (layers, S, T, k) for one S: by layer and position. */
const expertsOf = (routed: Expected, s: number): readonly (readonly (readonly number[])[])[] =>
  Array.from({ length: routed.shape[0] ?? 0 }, (_, layer) =>
    Array.from({ length: routed.shape[2] ?? 0 }, (_, t) => routed.row(layer, s, t)),
  );

/** The first token that differs, or undefined; where the reference's best two were closer than `tie` it may. */
function firstDifference(got: readonly number[], want: readonly number[], gaps: readonly number[], tie: number) {
  const at = want.findIndex((token, i) => got[i] !== token);
  if (at < 0 || (gaps[at] ?? 0) < 2 * tie) return undefined;
  return { at, got: got[at], want: want[at], gap: gaps[at] };
}

const families = readdirSync(new URL("families/", FIXTURES)).filter((name) => FULL || SHORT.includes(name));

describe("families", () => {
  test("are all there", () => expect(families.length).toBe(FULL ? 25 : SHORT.length));

  test.each(families)("%s", async (name) => {
    const path = folder(`families/${name}`);
    const expected = await readExpected(path);
    const [inputs, logits, greedy, gaps] = ["input_ids", "logits", "greedy", "greedy_gap"].map((key) =>
      get(expected, key),
    ) as [Expected, Expected, Expected, Expected];
    const prefix = expected.get("prefix_logits");
    const routed = expected.get("router_topk_ids");
    await withEngine(path.pathname, { ...f32, context: 96 }, async (engine) => {
      for (let s = 0; s < (inputs.shape[0] ?? 0); s++) {
        const tokens = inputs.row(s);
        expect(distance(await logitsOf(engine, tokens), rowsOf(logits, s)).max).toBeLessThanOrEqual(F32);
        const { experts } = await engine.score({ tokens, experts: true });
        expect(experts).toEqual(routed === undefined ? [] : expertsOf(routed, s));
        if (prefix !== undefined) {
          const short = tokens.slice(0, prefix.shape[1]);
          expect(distance(await logitsOf(engine, short), rowsOf(prefix, s)).max).toBeLessThanOrEqual(F32);
        }
      }
      const context = engine.plan.context;
      const said = await Promise.all(
        Array.from({ length: inputs.shape[0] ?? 0 }, async (_, s) => {
          const tokens = inputs.row(s);
          const maxTokens = Math.min(greedy.shape[1] ?? 0, context - tokens.length);
          if (maxTokens <= 0) return undefined; // a prompt as long as the context leaves no room for an answer
          const { tokens: got } = await answer(engine, { tokens, maxTokens, temperature: 0, ignoreEos: true });
          return firstDifference(got, greedy.row(s).slice(0, maxTokens), gaps.row(s), F32);
        }),
      );
      expect(said.filter((difference) => difference !== undefined)).toEqual([]);
    });
  });

  test.each(FULL ? families : SHORT.slice(0, 1))("%s as by default, with f16 keys and values", async (name) => {
    const path = folder(`families/${name}`);
    const expected = await readExpected(path);
    const [inputs, logits] = [get(expected, "input_ids"), get(expected, "logits")];
    await withEngine(path.pathname, { device, context: 96 }, async (engine) => {
      const { max, mean } = distance(await logitsOf(engine, inputs.row(0)), rowsOf(logits, 0));
      expect(max).toBeLessThanOrEqual(0.1);
      expect(mean).toBeLessThanOrEqual(0.01);
      expect(max).toBeGreaterThan(0); // it is another computation, or the option does nothing
    });
  });
});

test("the model that ships says what transformers says, by the same experts", async () => {
  const expected = await readExpected(folder("models/default"));
  const [inputs, logits, greedy, gaps, routed] = ["input_ids", "logits", "greedy", "greedy_gap", "router_topk_ids"].map(
    (key) => get(expected, key),
  ) as [Expected, Expected, Expected, Expected, Expected];
  await withEngine("default", f32, async (engine) => {
    for (let s = 0; s < 3; s++) {
      const tokens = inputs.row(s);
      expect(distance(await logitsOf(engine, tokens), rowsOf(logits, s)).max).toBeLessThanOrEqual(F32);
      expect((await engine.score({ tokens, experts: true })).experts).toEqual(expertsOf(routed, s));
    }
    const said = await Promise.all(
      [0, 1, 2].map(async (s) => {
        const want = greedy.row(s).slice(0, TRAINED / 2);
        const request = { tokens: inputs.row(s), maxTokens: want.length, temperature: 0, ignoreEos: true };
        return firstDifference((await answer(engine, request)).tokens, want, gaps.row(s), F32);
      }),
    );
    expect(said.filter((difference) => difference !== undefined)).toEqual([]);
  });
});

describe("stories260k", () => {
  const path = folder("models/stories260k");

  test("logits, log-probabilities and the story it tells", async () => {
    const expected = await readExpected(path);
    const [inputs, logits] = [get(expected, "input_ids"), get(expected, "logits")];
    await withEngine(path.pathname, f32, async (engine) => {
      for (let s = 0; s < (FULL ? 4 : 2); s++) {
        expect(distance(await logitsOf(engine, inputs.row(s)), rowsOf(logits, s)).max).toBeLessThanOrEqual(F32);
      }
      const story = await answer(engine, {
        prompt: "Once upon a time",
        maxTokens: TRAINED,
        temperature: 0,
        ignoreEos: true,
      });
      expect(story.tokens).toEqual(Array.from(get(expected, "story_greedy").values).slice(0, TRAINED));
      expect(story.last.usage?.promptTokens).toBe(get(expected, "story_ids").values.length);
      expect(
        story.text.startsWith(", there was a little girl named Lily. She loved to play outside in the park."),
      ).toBe(true);
      const { texts } = await engine.score({ text: "Once upon a time" });
      expect(texts?.join("")).toContain("Once upon a time");
    });
  });

  test.runIf(FULL)("log-probabilities of 499 tokens, over the border of an attention split", async () => {
    const expected = await readExpected(path);
    await withEngine(path.pathname, f32, async (engine) => {
      const long = get(expected, "long_ids");
      const { logprobs } = await engine.score({ tokens: Array.from(long.values) });
      const off = logprobs
        .slice(1)
        .map((value, i) => Math.abs((value ?? Number.NaN) - (get(expected, "long_logprobs").values[i] ?? Number.NaN)));
      expect(off).toHaveLength(498);
      expect(Math.max(...off)).toBeLessThanOrEqual(F32);
    });
  });

  test("prompts together, as long as they like", async () => {
    const expected = await readExpected(path);
    const [inputs, greedy, gaps] = ["input_ids", "greedy", "greedy_gap"].map((key) => get(expected, key)) as [
      Expected,
      Expected,
      Expected,
    ];
    await withEngine(path.pathname, f32, async (engine) => {
      const said = await Promise.all(
        [0, 1, 2, 3].map(async (s) => {
          const want = greedy.row(s).slice(0, TRAINED / 2);
          const request = { tokens: inputs.row(s), maxTokens: want.length, temperature: 0, ignoreEos: true };
          const { tokens } = await answer(engine, request);
          return firstDifference(tokens, want, gaps.row(s), F32);
        }),
      );
      expect(said.filter((difference) => difference !== undefined)).toEqual([]);
    });
  });
});
