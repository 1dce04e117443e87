/** Requests: every field refused by its name, limits in numbers, defaults where nothing is said. */
import { beforeAll, describe, expect, test } from "vitest";
import { openFolder } from "../device/nodeFiles.ts";
import { readGenerationConfig } from "../models/generationConfig.ts";
import { chatTemplate } from "../models/text/chatTemplate.ts";
import { loadTokenizer, type Tokenizer } from "../models/text/tokenizer.ts";
import { ContextLengthError, InvalidRequestError } from "./errors.ts";
import { type RequestContext, resolveGenerate, resolveScore } from "./request.ts";
import { GREEDY } from "./samplingParams.ts";
import type { GenerateRequest, ScoreRequest } from "./types.ts";

const TEMPLATE =
  "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}{{ mood }}assistant:{% endif %}";
const FOLDER = new URL("../test/fixtures/models/stories260k/", import.meta.url);

let tokenizer: Tokenizer;
beforeAll(async () => {
  const loaded = await loadTokenizer(openFolder(FOLDER));
  if (loaded === undefined) throw new Error("stories260k has no tokenizer");
  tokenizer = loaded;
});

function context(more: Partial<RequestContext> = {}): RequestContext {
  return {
    tokenizer,
    template: chatTemplate("a test", TEMPLATE),
    defaults: readGenerationConfig({}),
    stopIds: [2],
    vocabulary: 512,
    context: 64,
    longest: 4096,
    trained: 1024,
    draft: false,
    takesBack: true,
    randomSeed: () => 42,
    ...more,
  };
}
const ids = (count: number) => Array.from({ length: count }, (_, i) => i);

/** What is no request, as a page or a server may send it. */
const wrong = (fields: unknown) => fields as GenerateRequest & ScoreRequest;
const refusal = (request: unknown, more?: Partial<RequestContext>): string => {
  try {
    resolveGenerate(wrong(request), context(more));
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidRequestError);
    return error instanceof Error ? error.message : "";
  }
  return "accepted";
};

describe("generate", () => {
  test.each([
    [{ prompt: "a", tokens: [1] }, "generate: 2 of prompt, messages and tokens are given, expected exactly one"],
    [{}, "generate: 0 of prompt, messages and tokens"],
    [null, "generate: expected an object with prompt, messages"],
    ["once", "generate: expected an object"],
    [{ prompt: "a", max_tokens: 3 }, 'generate: field "max_tokens" is not supported; there are prompt, messages'],
    [{ prompt: 3 }, "prompt: is number, expected a string"],
    [{ tokens: "a" }, "tokens: expected a list of token ids"],
    [{ tokens: [1, 512] }, "tokens[1]: is 512, expected an integer from 0 to 511"],
    [{ tokens: [-1] }, "tokens[0]: is -1"],
    [{ tokens: [1.5] }, "tokens[0]: is 1.5"],
    [{ tokens: ["7"] }, "tokens[0]: is 7"],
    [{ messages: [] }, "messages: is empty"],
    [{ messages: [{ role: "user", content: 3 }] }, "messages[0].content"],
    [{ messages: "hi" }, "messages"],
    [{ prompt: "a", maxTokens: 0 }, "maxTokens: is 0, expected an integer from 1"],
    [{ prompt: "a", maxTokens: null }, "maxTokens: is null"],
    [{ prompt: "a", maxTokens: 1.5 }, "maxTokens: is 1.5"],
    [{ prompt: "a", priority: "1" }, "priority: is 1, expected an integer from -2147483648 to 2147483647"],
    [{ prompt: "a", priority: 2 ** 31 }, "priority: is 2147483648"],
    [{ prompt: "a", stop: "x" }, "stop: expected a list of at most 64 strings"],
    [{ prompt: "a", stop: ["x", ""] }, "stop[1]: expected a string that is not empty"],
    [{ prompt: "a", stop: [1] }, "stop[0]"],
    [{ prompt: "a", stop: Array(65).fill("x") }, "stop: expected a list of at most 64"],
    [{ prompt: "a", stopTokenIds: [512] }, "stopTokenIds[0]: is 512"],
    [{ prompt: "a", n: 0 }, "n: is 0, expected an integer from 1 to 128"],
    [{ prompt: "a", n: 129 }, "n: is 129"],
    [{ prompt: "a", ignoreEos: "yes" }, "ignoreEos: is string, expected a boolean"],
    [{ prompt: "a", temperature: -1 }, "temperature: is -1, expected a number from 0 to 10000"],
    [{ prompt: "a", temperature: Number.NaN }, "temperature: is NaN"],
    [{ prompt: "a", temperature: "1" }, "temperature: is 1"],
    [{ prompt: "a", topK: -1 }, "topK: is -1"],
    [{ prompt: "a", topK: 1.5 }, "topK: is 1.5"],
    [{ prompt: "a", topP: 1.1 }, "topP: is 1.1, expected a number from 0 to 1"],
    [{ prompt: "a", minP: 2 }, "minP: is 2"],
    [{ prompt: "a", typicalP: 0 }, "typicalP: is 0, expected a number above 0, at most 1"],
    [{ prompt: "a", typicalP: 1.5 }, "typicalP: is 1.5"],
    [{ prompt: "a", repetitionPenalty: 0 }, "repetitionPenalty: is 0, expected a number above 0, at most 1000"],
    [{ prompt: "a", repetitionPenalty: "1.1" }, "repetitionPenalty: is 1.1, expected a number"],
    [{ prompt: "a", presencePenalty: 2.1 }, "presencePenalty: is 2.1, expected a number from -2 to 2"],
    [{ prompt: "a", frequencyPenalty: -3 }, "frequencyPenalty: is -3, expected a number from -2 to 2"],
    [{ prompt: "a", logitBias: [1] }, "logitBias: expected an object of biases by token id"],
    [{ prompt: "a", logitBias: null }, "logitBias: expected an object"],
    [{ prompt: "a", logitBias: { 512: 1 } }, 'logitBias: has "512", expected token ids from 0 to 511'],
    [{ prompt: "a", logitBias: { "-1": 1 } }, 'logitBias: has "-1"'],
    [{ prompt: "a", logitBias: { "1.5": 1 } }, 'logitBias: has "1.5"'],
    [{ prompt: "a", logitBias: { a: 1 } }, 'logitBias: has "a"'],
    [{ prompt: "a", logitBias: { 5: 101 } }, "logitBias[5]: is 101, expected a number from -100 to 100"],
    [{ prompt: "a", logitBias: { 5: "1" } }, "logitBias[5]: is 1, expected a number"],
    [{ prompt: "a", allowedTokenIds: [] }, "allowedTokenIds: is empty, expected at least one token id"],
    [{ prompt: "a", allowedTokenIds: 5 }, "allowedTokenIds: expected a list of token ids"],
    [{ prompt: "a", allowedTokenIds: [512] }, "allowedTokenIds[0]: is 512"],
    [{ prompt: "a", badWords: "x" }, "badWords: expected a list of at most 1024 words"],
    [{ prompt: "a", badWords: Array(1025).fill("x") }, "badWords: expected a list of at most 1024 words"],
    [{ prompt: "a", badWords: [5] }, "badWords[0]: expected a string or a list of token ids"],
    [{ prompt: "a", badWords: [[]] }, "badWords[0]: has 0 tokens, expected 1 to 64"],
    [{ prompt: "a", badWords: ["x", [512]] }, "badWords[1][0]: is 512"],
    [{ prompt: "a", badWords: [Array(65).fill(1)] }, "badWords[0]: has 65 tokens"],
    [{ prompt: "a", minTokens: -1 }, "minTokens: is -1, expected an integer from 0"],
    [{ prompt: "a", minTokens: 5, maxTokens: 4 }, "minTokens: is 5, expected at most maxTokens, 4"],
    [{ prompt: "a", allowedTokenIds: [5], badWords: [[5]] }, "allowedTokenIds, badWords: leave no token to begin with"],
    [
      { prompt: "a", allowedTokenIds: [2], minTokens: 3 },
      "allowedTokenIds, minTokens: leave no token to begin with, expected at least one",
    ],
    [{ prompt: "a", promptLogprobs: 65 }, "promptLogprobs: is 65, expected an integer from 0 to 64"],
    [{ prompt: "a", seed: -1 }, "seed: is -1"],
    [{ prompt: "a", seed: 2 ** 53 }, "seed: is 9007199254740992"],
    [{ prompt: "a", seed: "7" }, "seed: is 7, expected an integer"],
    [{ prompt: "a", logprobs: 65 }, "logprobs: is 65, expected an integer from 0 to 64"],
    [{ prompt: "a", parseSpecial: 1 }, "parseSpecial: is number, expected a boolean"],
    [{ messages: [{ role: "user", content: "a" }], chatTemplateKwargs: "x" }, "chatTemplateKwargs: is string"],
    [{ messages: [{ role: "user", content: "a" }], chatTemplateKwargs: null }, "chatTemplateKwargs: is null"],
    [
      { messages: [{ role: "user", content: "a" }], chatTemplateKwargs: { messages: [] } },
      "chatTemplateKwargs.messages: is set by ingle",
    ],
    [
      { messages: [{ role: "user", content: "a" }], chatTemplateKwargs: ["a"] },
      'chatTemplateKwargs: "0" is no name of a variable',
    ],
    [{ prompt: "a", speculation: true }, "speculation: is boolean, expected an object"],
    [{ prompt: "a", speculation: {} }, "speculation: there is no draft model; load the engine with one, or ask for"],
    [{ prompt: "a", speculation: { draftTokens: 2 } }, "speculation: there is no draft model"],
    [
      { prompt: "a", speculation: { k: 2 } },
      'speculation: field "k" is not supported; there are draftTokens, promptLookup',
    ],
    [{ prompt: "a", speculation: { promptLookup: 1 } }, "speculation.promptLookup: is number, expected a boolean"],
    [
      { prompt: "a", speculation: { promptLookup: true, draftTokens: 0 } },
      "speculation.draftTokens: is 0, expected an",
    ],
    [{ prompt: "a", signal: {} }, "signal: expected an AbortSignal"],
  ])("refuses %j", (request, message) => expect(refusal(request)).toContain(message));

  test("says what a model lacks", () => {
    expect(refusal({ prompt: "a" }, { tokenizer: undefined })).toContain("prompt: the model has no tokenizer.json");
    const messages = [{ role: "user", content: "a" }];
    expect(refusal({ messages }, { tokenizer: undefined })).toContain("messages: the model has no tokenizer.json");
    expect(refusal({ messages }, { template: undefined })).toContain("messages: the model has no chat template");
    expect(refusal({ tokens: [] }, { tokenizer: undefined })).toContain("prompt: is empty");
    const words = { tokens: [1], badWords: [[3], "a"] };
    expect(refusal(words, { tokenizer: undefined })).toContain("badWords[1]: the model has no tokenizer.json");
  });

  test.each(["", undefined])("nothing at all is the bos token (%j)", (prompt) => {
    const { tokens } = resolveGenerate(prompt === undefined ? { tokens: [] } : { prompt }, context());
    expect(tokens).toEqual([1]);
  });

  test("a prompt fits up to one token below the context", () => {
    const { tokens, maxTokens } = resolveGenerate({ tokens: ids(63) }, context());
    expect([tokens.length, maxTokens]).toEqual([63, 1]);
    for (const count of [64, 65, 192]) {
      const error = new ContextLengthError(
        `prompt: ${count} tokens, at most 63 in a context of 64; shorten it or raise --context: up to 4096 fit, 1024 are what the model was made for`,
      );
      expect(() => resolveGenerate({ tokens: ids(count) }, context())).toThrow(error);
    }
  });

  test("prompt and maxTokens fit together or are refused with both numbers", () => {
    expect(resolveGenerate({ tokens: ids(60), maxTokens: 4 }, context()).maxTokens).toBe(4);
    const error = new ContextLengthError(
      "prompt and maxTokens: 60 + 5 tokens, at most 64 in the context; ask for 4 or fewer",
    );
    expect(() => resolveGenerate({ tokens: ids(60), maxTokens: 5 }, context())).toThrow(error);
    expect(resolveGenerate({ tokens: ids(60) }, context()).maxTokens).toBe(4);
  });

  test("messages go through the template, with its arguments", () => {
    const messages = [{ role: "user", content: "hi" }];
    const { tokens } = resolveGenerate({ messages, chatTemplateKwargs: { mood: "glad " } }, context());
    expect(tokenizer.decode(tokens, { skipSpecial: true })).toBe("user: hi\nglad assistant:");
  });

  test("a control token spelt in a prompt is one, in a message it is text", () => {
    const eos = 2;
    expect(resolveGenerate({ prompt: "a</s>" }, context()).tokens).toContain(eos);
    expect(resolveGenerate({ prompt: "a</s>", parseSpecial: false }, context()).tokens).not.toContain(eos);
    const messages = [{ role: "user", content: "a</s>" }];
    expect(resolveGenerate({ messages }, context()).tokens).not.toContain(eos);
    expect(resolveGenerate({ messages, parseSpecial: true }, context()).tokens).toContain(eos);
  });

  test("sampling: the request before generation_config.json before plain sampling", () => {
    const sampling = (request: Partial<GenerateRequest>, file: Record<string, unknown> = {}) =>
      resolveGenerate({ prompt: "a", ...request }, context({ defaults: readGenerationConfig(file) })).sampling;
    expect(sampling({})).toEqual({ ...GREEDY, temperature: 1, seed: 42 });
    const file = { do_sample: true, temperature: 0.6, top_k: 20, top_p: 0.9, min_p: 0.05, typical_p: 0.5 };
    const asFile = {
      temperature: 0.6,
      topK: 20,
      topP: 0.9,
      minP: 0.05,
      typicalP: 0.5,
      seed: 42,
      choice: 0,
      seeded: false,
      rules: null,
    };
    expect(sampling({}, file)).toEqual(asFile);
    const own = { temperature: 0.2, topK: 0, topP: 1, minP: 0, typicalP: 1, seed: 2 ** 53 - 1 };
    expect(sampling(own, file)).toEqual({ ...own, choice: 0, seeded: true, rules: null });
    expect(sampling({}, { ...file, do_sample: false }).temperature).toBe(0);
    expect(sampling({ temperature: 0.7 }, { ...file, do_sample: false }).temperature).toBe(0.7);
  });

  test("rules: only where something changes a logit, with the sequence's tokens only where they are looked at", () => {
    const rules = (request: Partial<GenerateRequest>, file: Record<string, unknown> = {}) =>
      resolveGenerate({ tokens: [7, 8], ...request }, context({ defaults: readGenerationConfig(file) })).sampling.rules;
    const off = { repetitionPenalty: 1, presencePenalty: 0, frequencyPenalty: 0, logitBias: {}, badWords: [] };
    expect(rules({ ...off, minTokens: 0 })).toBeNull();
    expect(rules({ minTokens: 3, ignoreEos: true })).toBeNull();
    for (const it of [{ logitBias: { 3: 1 } }, { allowedTokenIds: [3] }, { badWords: [[3]] }, { minTokens: 1 }])
      expect(rules(it)?.history).toBe(false);
    const looking = [
      { repetitionPenalty: 1.1 },
      { presencePenalty: 1 },
      { frequencyPenalty: -1 },
      { badWords: [[3, 4]] },
    ];
    for (const it of looking) expect(rules(it)?.history).toBe(true);
    expect(rules({}, { repetition_penalty: 1.1 })).toEqual(rules({ repetitionPenalty: 1.1 }));
    expect(rules({ repetitionPenalty: 1 }, { repetition_penalty: 1.1 })).toBeNull();
    expect(rules({}, { bad_words_ids: [[3, 4], [2], [600]] })).toEqual(rules({ badWords: [[3, 4]] }));
    expect(rules({ badWords: [] }, { bad_words_ids: [[3, 4]] })).toBeNull();
    expect(rules({}, { min_new_tokens: 100 })).toEqual(rules({ minTokens: 62 }));
  });

  test("a bad word is banned at the beginning of a text and behind a space", () => {
    const { badWords, ...plain } = { tokens: [7], badWords: ["once"] };
    const ids = (text: string) => tokenizer.encode(text, { addSpecialTokens: false, parseSpecial: false });
    const block = (words: readonly (readonly number[])[]) =>
      resolveGenerate({ ...plain, badWords: words }, context()).sampling.rules?.block;
    const [bare, spaced] = [ids("once"), ids(" once")];
    const both = spaced.length === bare.length && spaced[0] !== bare[0] ? [bare, spaced] : [bare];
    expect(resolveGenerate({ ...plain, badWords }, context()).sampling.rules?.block).toEqual(block(both));
  });

  test("a seed is kept, and a random one is drawn where none is given", () => {
    let drawn = 6;
    const randomSeed = () => ++drawn;
    const seeds = [undefined, undefined, 0, 5].map(
      (seed) =>
        resolveGenerate({ prompt: "a", ...(seed === undefined ? {} : { seed }) }, context({ randomSeed })).sampling
          .seed,
    );
    expect(seeds).toEqual([7, 8, 0, 5]);
  });

  test("ids that end the answer: the model's and the request's, or the request's alone", () => {
    const stopIds = (request: Partial<GenerateRequest>) => [
      ...resolveGenerate({ prompt: "a", ...request }, context()).stopIds,
    ];
    expect(stopIds({})).toEqual([2]);
    expect(stopIds({ stopTokenIds: [7] })).toEqual([2, 7]);
    expect(stopIds({ stopTokenIds: [7], ignoreEos: true })).toEqual([7]);
    expect(stopIds({ ignoreEos: true })).toEqual([]);
  });

  test("how many of the best tokens", () => {
    expect(resolveGenerate({ prompt: "a" }, context()).top).toBe(0);
    expect(resolveGenerate({ prompt: "a", logprobs: 64 }, context()).top).toBe(64);
  });
});

describe("score", () => {
  const score = (request: unknown, more?: Partial<RequestContext>) => resolveScore(wrong(request), context(more));

  test.each([
    [{}, "score: expected exactly one of text and tokens"],
    [{ text: "a", tokens: [1] }, "score: expected exactly one of text and tokens"],
    [undefined, "score: expected an object with text, tokens"],
    [{ text: "a", prompt: "b" }, 'score: field "prompt" is not supported'],
    [{ text: 3 }, "text: is number, expected a string"],
    [{ tokens: [] }, "score: no tokens, expected at least one"],
    [{ tokens: [512] }, "tokens[0]: is 512"],
    [{ tokens: [1], top: 65 }, "top: is 65"],
    [{ tokens: [1], onLogits: true }, "onLogits: is boolean, expected a function"],
    [{ tokens: [1], signal: "stop" }, "signal: expected an AbortSignal"],
  ])("refuses %j", (request, message) => {
    expect(() => score(request)).toThrow(InvalidRequestError);
    expect(() => score(request)).toThrow(message);
  });

  test("takes as many tokens as the context has", () => {
    expect(score({ tokens: ids(64) }).tokens).toHaveLength(64);
    const error = new ContextLengthError(
      "score: 65 tokens, at most 64 in the context; split the text or raise --context: up to 4096 fit, 1024 are what the model was made for",
    );
    expect(() => score({ tokens: ids(65) })).toThrow(error);
  });

  test("says what a model lacks", () => {
    expect(() => score({ text: "a" }, { tokenizer: undefined })).toThrow("text: the model has no tokenizer.json");
  });
});
