/** Bodies as requests to the engine: every field mapped, neutral or refused by its own name; nothing runs before all is checked. */
import { beforeAll, describe, expect, test } from "vitest";
import { FakeEngine } from "../../test/fakeEngine.ts";
import { ContextLengthError, InvalidRequestError } from "../errors.ts";
import { chatJob } from "./chatJob.ts";
import { RequestFieldError } from "./fields.ts";
import { complete } from "./job.ts";
import { textJob } from "./textJob.ts";

let engine: FakeEngine;
beforeAll(async () => {
  engine = await FakeEngine.load();
});

const messages = [{ role: "user", content: "hi" }];

/** Runs a job of a body to its end; what it asked of the engine is the last of `engine.asked`. */
async function run(makeJob: typeof chatJob | typeof textJob, body: unknown) {
  const job = await makeJob(engine, body, "m");
  return await complete<unknown, object>(job, job.events());
}

async function refusal(
  makeJob: typeof chatJob | typeof textJob,
  body: unknown,
): Promise<{ param: string; message: string }> {
  const before = engine.asked.length;
  try {
    await run(makeJob, body);
  } catch (error) {
    expect(engine.asked.length).toBe(before);
    expect(error).toBeInstanceOf(InvalidRequestError);
    if (error instanceof RequestFieldError) return { param: error.param, message: error.message };
    return { param: "", message: error instanceof Error ? error.message : "" };
  }
  throw new Error("was accepted");
}

describe("fields of a chat", () => {
  test("are those of the engine under their own names", async () => {
    await run(chatJob, {
      model: "m",
      messages,
      max_completion_tokens: 3,
      temperature: 0.5,
      top_p: 0.9,
      top_k: 7,
      min_p: 0.01,
      typical_p: 0.8,
      repetition_penalty: 1.1,
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
      logit_bias: { 3: 1 },
      allowed_token_ids: [1, 2],
      bad_words: ["x", [3]],
      min_tokens: 1,
      seed: 11,
      stop: "mat",
      stop_token_ids: [5],
      ignore_eos: true,
      priority: -3,
      logprobs: true,
      top_logprobs: 2,
      chat_template_kwargs: { mood: "kind" },
      user: "u",
      metadata: { a: "b" },
      store: false,
    });
    const { signal, ...asked } = engine.asked.at(-1) ?? {};
    expect(signal).toBeInstanceOf(AbortSignal);
    expect(asked).toEqual({
      tokens: engine.encode({ messages }),
      n: 1,
      maxTokens: 3,
      temperature: 0.5,
      topP: 0.9,
      topK: 7,
      minP: 0.01,
      typicalP: 0.8,
      repetitionPenalty: 1.1,
      presencePenalty: 0.5,
      frequencyPenalty: -0.5,
      logitBias: { 3: 1 },
      allowedTokenIds: [1, 2],
      badWords: ["x", [3]],
      minTokens: 1,
      seed: 11,
      stop: ["mat"],
      stopTokenIds: [5],
      ignoreEos: true,
      priority: -3,
      logprobs: 2,
    });
  });

  test("null, and what asks for nothing, are as if they were not there", async () => {
    await run(chatJob, {
      messages,
      max_tokens: 1,
      temperature: null,
      stop: null,
      stream: null,
      stream_options: null,
      n: null,
      response_format: { type: "text" },
      tools: [],
      tool_choice: "auto",
      parallel_tool_calls: true,
      logit_bias: null,
      unheard_of: null,
    });
    const { signal: _, tokens: __, ...asked } = engine.asked.at(-1) ?? {};
    expect(asked).toEqual({ maxTokens: 1, n: 1 });
  });

  const chat = { messages, max_tokens: 2 };
  test.each<[unknown, string, string]>([
    [[], "", "body: is a list, expected an object in JSON"],
    [null, "", "body: is null"],
    [{}, "messages", "messages: is missing"],
    [{ messages: [] }, "messages", "messages: is empty, expected at least one message"],
    [{ messages: [{ role: 3, content: "" }] }, "messages", "messages[0].role: is the number 3"],
    [
      { ...chat, temprature: 1 },
      "temprature",
      "temprature: there is no such field, or it is not supported; there are messages",
    ],
    [{ ...chat, __proto__x: 1 }, "__proto__x", "__proto__x: there is no such field"],
    [JSON.parse('{"messages": [], "__proto__": {}}'), "__proto__", "__proto__: there is no such field"],
    [{ ...chat, maxTokens: 1 }, "maxTokens", "maxTokens: there is no such field"],
    [{ ...chat, temperature: "1" }, "temperature", "temperature: is 1, expected a number from 0"],
    [{ ...chat, top_p: 2 }, "top_p", "top_p: is 2, expected a number from 0 to 1"],
    [{ ...chat, top_k: -1 }, "top_k", "top_k: is -1, expected an integer"],
    [{ ...chat, presence_penalty: 3 }, "presence_penalty", "presence_penalty: is 3, expected a number from -2 to 2"],
    [{ ...chat, repetition_penalty: 0 }, "repetition_penalty", "repetition_penalty: is 0, expected a number above 0"],
    [{ ...chat, logit_bias: { x: 1 } }, "logit_bias", 'logit_bias: has "x", expected token ids'],
    [{ ...chat, logit_bias: { 1: 101 } }, "logit_bias", "logit_bias[1]: is 101"],
    [{ ...chat, bad_words: [[]] }, "bad_words", "bad_words[0]: has 0 tokens"],
    [{ ...chat, min_tokens: 3 }, "min_tokens", "min_tokens: is 3, expected at most maxTokens, 2"],
    [{ ...chat, seed: 2 ** 60 }, "seed", "seed: is 1152921504606847000, expected an integer"],
    [{ ...chat, priority: 0.5 }, "priority", "priority: is 0.5, expected an integer from -2147483648 to 2147483647"],
    [{ ...chat, stop: [""] }, "stop", "stop[0]: expected a string that is not empty"],
    [{ ...chat, stop: Array(65).fill("x") }, "stop", "stop: expected a list of at most 64 strings"],
    [{ ...chat, stop_token_ids: [1e9] }, "stop_token_ids", "stop_token_ids[0]: is 1000000000"],
    [{ ...chat, n: 0 }, "n", "n: is 0, expected a whole number from 1 to 128"],
    [{ ...chat, n: 1e9 }, "n", "n: is 1000000000"],
    [{ ...chat, n: 1.5 }, "n", "n: is 1.5"],
    [{ ...chat, max_tokens: 0 }, "max_tokens", "max_tokens: is 0, expected an integer from 1"],
    [{ messages, max_completion_tokens: 0.5 }, "max_completion_tokens", "max_completion_tokens: is 0.5"],
    [{ ...chat, max_completion_tokens: 3 }, "max_tokens", "max_completion_tokens and max_tokens: are 3 and 2"],
    [{ ...chat, logprobs: 3 }, "logprobs", "logprobs: is 3, expected true or false"],
    [{ ...chat, top_logprobs: 2 }, "top_logprobs", "top_logprobs: is given without logprobs"],
    [
      { ...chat, logprobs: true, top_logprobs: 65 },
      "top_logprobs",
      "top_logprobs: is 65, expected a whole number from 0 to 64",
    ],
    [{ ...chat, stream: "yes" }, "stream", 'stream: is "yes", expected true or false'],
    [{ ...chat, stream_options: {} }, "stream_options", "stream_options: is given without stream"],
    [{ ...chat, stream: true, stream_options: { x: 1 } }, "x", "x: there is no such field"],
    [{ ...chat, stream: true, prompt_logprobs: 1 }, "prompt_logprobs", "prompt_logprobs: has no place in a stream"],
    [
      { ...chat, response_format: { type: "json_object" } },
      "response_format",
      'response_format: is {"type":"json_object"}, which is not supported',
    ],
    [{ ...chat, tools: [{}] }, "tools", "tools: is [{}], which is not supported"],
    [{ ...chat, echo: true }, "echo", "echo: there is no such field"],
    [
      { ...chat, chat_template_kwargs: 3 },
      "chat_template_kwargs",
      "chat_template_kwargs: is number, expected an object",
    ],
  ])("%j is refused by name", async (body, param, message) => {
    const refused = await refusal(chatJob, body);
    expect(refused.message).toContain(message);
    expect(refused.param).toBe(param);
  });

  test("a prompt past the context is refused with both lengths, in the words of the body", async () => {
    const long = [{ role: "user", content: "cat ".repeat(300) }];
    await expect(run(chatJob, { messages: long })).rejects.toThrow(
      /^messages: 3\d\d tokens, at most 255 in a context of 256/,
    );
    await expect(run(chatJob, { messages, max_tokens: 300 })).rejects.toThrow(
      /^messages and max_tokens: \d+ \+ 300 tokens, at most 256 in the context/,
    );
    await expect(run(chatJob, { messages, max_tokens: 300 })).rejects.toThrow(ContextLengthError);
  });
});

test("a text that is too long whatever its tokens are is refused before it is encoded", async () => {
  const long = "0123456789".repeat(400_000); // 40 s of encoding
  const begun = performance.now();
  const message = /: \d+ characters, at most \d+ in a context of 256 tokens/;
  await expect(run(textJob, { prompt: long })).rejects.toThrow(message);
  await expect(run(textJob, { prompt: ["a", long] })).rejects.toThrow(/^prompt: 4000000/);
  await expect(run(chatJob, { messages: [{ role: "user", content: long }] })).rejects.toThrow(/^messages: 40000\d\d/);
  expect(performance.now() - begun).toBeLessThan(5000);
});

test("a long list of prompts is encoded in turns with other work", async () => {
  const { longestToken } = engine.model.tokenizer;
  const prompt = Array<string>(100).fill("0123456789".repeat(20));
  let turns = 0;
  const clock = setInterval(() => turns++, 0);
  await textJob(engine, { prompt }, "m");
  clearInterval(clock);
  expect(longestToken).toBeGreaterThan(3);
  expect(turns).toBeGreaterThan(2);
});

describe("fields of a text", () => {
  test.each<[unknown, string, string]>([
    [{}, "prompt", "prompt: expected a text"],
    [{ prompt: [] }, "prompt", "prompt: expected a text"],
    [{ prompt: {} }, "prompt", "prompt: expected a text"],
    [{ prompt: ["a", 3] }, "prompt", "prompt: expected texts and lists of token ids"],
    [{ prompt: [1, "a"] }, "prompt", "prompt[1]: is a, expected an integer from 0"],
    [{ prompt: [1, 1e9] }, "prompt", "prompt[1]: is 1000000000"],
    [{ prompt: [[1], [-1]] }, "prompt", "prompt[0]: is -1"],
    [{ prompt: Array(257).fill("a") }, "prompt", "prompt: 257 prompts of 1 answers each, expected at most 256"],
    [{ prompt: ["a", "b", "c"], n: 100 }, "prompt", "prompt: 3 prompts of 100 answers each"],
    [{ prompt: "a", max_tokens: -1 }, "max_tokens", "max_tokens: is -1, expected a whole number from 0"],
    [{ prompt: "a", logprobs: true }, "logprobs", "logprobs: is true, expected a whole number from 0 to 64"],
    [{ prompt: "a", suffix: "b" }, "suffix", 'suffix: is "b", which is not supported'],
    [{ prompt: "a", best_of: 2 }, "best_of", "best_of: is 2, which is not supported"],
    [{ prompt: "a", messages: [] }, "messages", "messages: there is no such field"],
  ])("%j is refused by name", async (body, param, message) => {
    const refused = await refusal(textJob, body);
    expect(refused.message).toContain(message);
    expect(refused.param).toBe(param);
  });

  test("a text is 16 tokens long if nothing is said", async () => {
    await run(textJob, { prompt: "Once" });
    expect(engine.asked.at(-1)?.maxTokens).toBe(16);
  });
});
