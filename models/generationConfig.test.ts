import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ModelFormatError } from "./errors.ts";
import { readGenerationConfig, stopTokenIds } from "./generationConfig.ts";

describe("generation_config.json", () => {
  test("as a chat model publishes it", () => {
    const raw = {
      do_sample: true,
      eos_token_id: [0, 2],
      pad_token_id: 3,
      temperature: 0.8,
      top_p: 0.95,
      max_new_tokens: 256,
    };
    expect(readGenerationConfig(raw)).toEqual({
      doSample: true,
      temperature: 0.8,
      topK: undefined,
      topP: 0.95,
      minP: undefined,
      typicalP: undefined,
      repetitionPenalty: undefined,
      badWords: [],
      minNewTokens: undefined,
      maxNewTokens: 256,
      eosTokenIds: [0, 2],
      ignored: [],
    });
  });

  test("every field that is applied", () => {
    const raw = {
      do_sample: false,
      temperature: 0,
      top_k: 1,
      top_p: 1,
      min_p: 0,
      typical_p: 0.5,
      repetition_penalty: 1.1,
      bad_words_ids: [[3], [4, 5]],
      min_new_tokens: 5,
      eos_token_id: 5,
    };
    expect(readGenerationConfig(raw)).toMatchObject({
      doSample: false,
      temperature: 0,
      topK: 1,
      topP: 1,
      minP: 0,
      typicalP: 0.5,
      repetitionPenalty: 1.1,
      badWords: [[3], [4, 5]],
      minNewTokens: 5,
      eosTokenIds: [5],
    });
  });

  test("nothing said, null, and top_k switched off", () => {
    const nothing = readGenerationConfig({});
    expect(nothing).toMatchObject({ doSample: undefined, temperature: undefined, topK: undefined, eosTokenIds: [] });
    expect(readGenerationConfig({ temperature: null, eos_token_id: null, top_k: null })).toEqual(nothing);
    expect(readGenerationConfig({ top_k: -1 }).topK).toBe(0);
  });

  test("what transformers would apply and ingle does not is listed, unless it does nothing", () => {
    const raw = {
      num_beams: 4,
      no_repeat_ngram_size: 0,
      suppress_tokens: [],
      sequence_bias: [[[3], 1.5]],
      use_cache: true,
      min_length: 5,
    };
    expect(readGenerationConfig(raw).ignored).toEqual(["num_beams", "sequence_bias", "min_length"]);
  });

  test.each<[string, unknown, string]>([
    ["temperature", -1, "temperature is -1, expected a number of at least 0"],
    ["temperature", NaN, "temperature is NaN"],
    ["temperature", "0.7", 'temperature is "0.7"'],
    ["top_k", 1.5, "top_k is 1.5"],
    ["top_k", -2, "top_k is -2"],
    ["top_p", 0, "top_p is 0, expected a number above 0 and of at most 1"],
    ["top_p", 1.1, "top_p is 1.1"],
    ["min_p", 2, "min_p is 2"],
    ["repetition_penalty", 0, "repetition_penalty is 0"],
    ["bad_words_ids", [3], "bad_words_ids is a list of 1, expected a list of lists of token ids, or null"],
    ["bad_words_ids", [[]], "bad_words_ids is a list of 1"],
    ["bad_words_ids", [[1, -2]], "bad_words_ids is a list of 1"],
    ["min_new_tokens", -1, "min_new_tokens is -1"],
    ["do_sample", 1, "do_sample is 1, expected true or false"],
    ["max_new_tokens", 0, "max_new_tokens is 0"],
    ["eos_token_id", "</s>", 'eos_token_id is "</s>"'],
    ["eos_token_id", [1, [2]], "eos_token_id is a list of 2"],
  ])("refused: %s %j", (key, value, words) => {
    expect(() => readGenerationConfig({ [key]: value })).toThrow(ModelFormatError);
    expect(() => readGenerationConfig({ [key]: value })).toThrow(`generation_config.json: ${words}`);
  });

  test("any JSON gives defaults or our error", () => {
    const key = fc.constantFrom(
      "do_sample",
      "temperature",
      "top_k",
      "top_p",
      "min_p",
      "typical_p",
      "eos_token_id",
      "bad_words_ids",
      "max_new_tokens",
      "num_beams",
    );
    fc.assert(
      fc.property(fc.oneof(fc.dictionary(key, fc.jsonValue()), fc.jsonValue()), (raw) => {
        try {
          readGenerationConfig(raw);
        } catch (error) {
          if (!(error instanceof ModelFormatError)) throw error;
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the ids that end an answer", () => {
  const eos = (...eosTokenIds: number[]) => ({ eosTokenIds });

  test("are the union of config, generation config and tokenizer, ascending, once each", () => {
    expect(stopTokenIds(eos(2), eos(0, 2), [7, 0])).toEqual([0, 2, 7]);
  });

  test.each<[string, readonly number[]]>([
    ["config", stopTokenIds(eos(2), null, [])],
    ["generation config", stopTokenIds(eos(), eos(2), [])],
    ["tokenizer", stopTokenIds(eos(), eos(), [2])],
  ])("may be in the %s alone", (_, ids) => {
    expect(ids).toEqual([2]);
  });

  test("may be unknown", () => {
    expect(stopTokenIds(eos(), null, [])).toEqual([]);
  });
});
