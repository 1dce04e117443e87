import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { normalizeConfig } from "./config.ts";
import { fieldsOf } from "./configChecks.ts";
import { LLAMA_RULES } from "./configRules.ts";
import { lengthDependent, type RopeConfig, ropeFrequencies, ropeRow, ropeRowAt, ropeVariant } from "./rope.ts";
import { readRope } from "./ropeConfig.ts";

interface Pass {
  readonly length: number;
  readonly inv_freq: readonly number[];
  readonly attention_scaling: number;
  readonly positions: readonly number[];
  readonly rows: readonly (readonly number[])[];
}

interface Case {
  readonly name: string;
  readonly head_dim: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly passes: readonly Pass[];
}

const fixture = new URL("../test/fixtures/rope/rope.json", import.meta.url);
const { cases }: { cases: readonly Case[] } = JSON.parse(readFileSync(fixture, "utf8"));

const ULP = 2 ** -23; // of a float32, relative

function llama(head_dim: number, keys: Readonly<Record<string, unknown>>) {
  const shape = { hidden_size: 2 * head_dim, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2 };
  return { model_type: "llama", vocab_size: 8, ...shape, head_dim, ...keys };
}

function only(ropes: readonly RopeConfig[]): RopeConfig {
  const [rope, ...others] = ropes;
  if (rope === undefined || others.length > 0) throw new RangeError(`${ropes.length} ropes`);
  return rope;
}

/** The rope of a case as the product reads it: through the whole config, or for a partial rotation as a family that has one. */
function ropeOf({ name, head_dim, config }: Case): RopeConfig {
  if (!name.startsWith("partial")) return only(normalizeConfig(llama(head_dim, config), LLAMA_RULES).ropes);
  return readRope(fieldsOf("config.json", config), {
    head_dim,
    max_position_embeddings: 128,
    rules: { theta: 10_000, partial: 1 },
  });
}

describe.each(cases)("rope as transformers: $name", (item) => {
  const rope = ropeOf(item);

  test.each(item.passes)("frequencies of a pass of $length", ({ length, inv_freq, attention_scaling }) => {
    const { inverseFrequencies, attentionScaling } = ropeFrequencies(rope, length);
    expect(inverseFrequencies).toHaveLength(inv_freq.length);
    const errors = inv_freq.map((want, i) => Math.abs((inverseFrequencies[i] ?? NaN) / Math.fround(want) - 1));
    expect(Math.max(...errors)).toBeLessThanOrEqual(ULP); // `pow` of the two libraries may round apart by one unit
    expect(errors.filter((error) => error > 0).length).toBeLessThanOrEqual(Math.ceil(inv_freq.length / 8));
    expect(attentionScaling).toBeCloseTo(attention_scaling, 12);
  });

  test.each(item.passes)("cosines and sines of a pass of $length", ({ length, inv_freq, positions, rows }) => {
    const { inverseFrequencies } = ropeFrequencies(rope, length);
    for (const [at, position] of positions.entries()) {
      const row = ropeRow(rope, position, length);
      expect(row).toHaveLength(2 * inv_freq.length);
      rows[at]?.forEach((want, j) => {
        const i = j % inv_freq.length;
        const moved = Math.abs((inverseFrequencies[i] ?? NaN) - Math.fround(inv_freq[i] ?? NaN)) * position;
        expect(Math.abs((row[j] ?? NaN) - want)).toBeLessThanOrEqual(2e-7 + 2 * moved);
      });
    }
  });
});

const THETA = { theta: 10_000, rotary_dim: 4 } as const;
const DYNAMIC: RopeConfig = { type: "dynamic", ...THETA, factor: 2, max_position_embeddings: 32 };
const LONG: RopeConfig = {
  type: "longrope",
  ...THETA,
  attention_factor: 1.5,
  short_factor: [1, 1],
  long_factor: [2, 4],
  original_max_position_embeddings: 32,
};
const DEFAULT: RopeConfig = { type: "default", ...THETA };

test("position 0 is the attention scaling, then zeros", () => {
  expect([...ropeRow(LONG, 0, 1)]).toEqual([1.5, 1.5, 0, 0]);
});

test("a row is cosines, then sines, of position times frequency", () => {
  const row = ropeRow(DEFAULT, 3, 4); // frequencies 1 and 0.01
  [Math.cos(3), Math.cos(0.03), Math.sin(3), Math.sin(0.03)].forEach((want, i) => {
    expect(row[i]).toBeCloseTo(want, 7);
  });
  expect(ropeRowAt(ropeFrequencies(DEFAULT, 4), 3)).toEqual(row);
});

test("only dynamic and longrope depend on the length of the pass", () => {
  expect([DEFAULT, DYNAMIC, LONG].map(lengthDependent)).toEqual([false, true, true]);
});

test.each([DEFAULT, DYNAMIC, LONG])(
  "$type: two lengths share a variant exactly when they share frequencies",
  (rope) => {
    const lengths = [1, 31, 32, 33, 34, 64, 65];
    for (const a of lengths) {
      for (const b of lengths) {
        const same = Object.is(ropeVariant(rope, a), ropeVariant(rope, b));
        const equal =
          ropeFrequencies(rope, a).inverseFrequencies.join() === ropeFrequencies(rope, b).inverseFrequencies.join();
        expect([a, b, same]).toEqual([a, b, equal]);
      }
    }
  },
);
