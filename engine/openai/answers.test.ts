/** Answers in OpenAI's shape: whole and streamed they say the same, choices are numbered, and the sums agree. */
import { beforeAll, describe, expect, test } from "vitest";
import { FakeEngine } from "../../test/fakeEngine.ts";
import type { GenerateRequest } from "../types.ts";
import { ChatCompletions } from "./chatCompletions.ts";
import { complete, stream } from "./job.ts";
import { textLogprobs } from "./logprobs.ts";
import type { ChatCompletionChunk, TextCompletion } from "./shapes.ts";
import { textJob } from "./textJob.ts";

let engine: FakeEngine;
beforeAll(async () => {
  engine = await FakeEngine.load({ text: " the cat 🐱 sat", ends: true });
});

const messages = [{ role: "user", content: "hi" }];
const chat = () => new ChatCompletions(engine);

async function all<T>(chunks: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const chunk of chunks) list.push(chunk);
  return list;
}

async function text(body: object): Promise<TextCompletion> {
  const job = await textJob(engine, body, "m");
  return await complete(job, job.events());
}

describe("a chat", () => {
  test("whole", async () => {
    const { id, created, ...rest } = await chat().create({ messages, seed: 5 });
    const said =
      engine.model.tokenizer.encode(" the cat 🐱 sat", { addSpecialTokens: false, parseSpecial: false }).length + 1;
    const prompt = engine.encode({ messages }).length;
    expect(id).toMatch(/^chatcmpl-[0-9a-f-]{36}$/);
    expect(Math.abs(created - Date.now() / 1000)).toBeLessThan(10);
    expect(rest).toMatchObject({
      object: "chat.completion",
      model: "fake-model",
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: " the cat 🐱 sat", refusal: null },
          logprobs: null,
          finish_reason: "stop",
          seed: 5,
        },
      ],
      usage: {
        prompt_tokens: prompt,
        completion_tokens: said,
        total_tokens: prompt + said,
        prompt_tokens_details: { cached_tokens: 0 },
      },
      timings: { cache_n: 0, prompt_n: prompt, predicted_n: said },
    });
  });

  test("streamed, it joins to the same text and log-probabilities, and says who speaks once", async () => {
    const body = { messages, logprobs: true, top_logprobs: 2, max_tokens: 6 } as const;
    const whole = await chat().create(body);
    const chunks = await all(await chat().create({ ...body, stream: true }));
    const choices = chunks.flatMap((chunk) => chunk.choices);
    expect(choices.map(({ delta }) => delta.content ?? "").join("")).toBe(whole.choices[0]?.message.content);
    expect(choices.flatMap(({ logprobs }) => logprobs?.content ?? [])).toEqual(whole.choices[0]?.logprobs?.content);
    expect(choices.flatMap(({ delta }) => delta.role ?? [])).toEqual(["assistant"]);
    expect(choices.map(({ finish_reason }) => finish_reason).filter(Boolean)).toEqual(["length"]);
    expect(choices.at(-1)).toMatchObject({ delta: {}, finish_reason: "length" });
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.every((chunk) => !("usage" in chunk))).toBe(true);
    expect(chunks.at(-1)?.timings?.predicted_n).toBe(6);
  });

  test("bytes of tokens are raw: those of a cut character join to it", async () => {
    const { choices } = await chat().create({ messages, logprobs: true });
    const tokens = choices[0]?.logprobs?.content ?? [];
    const bytes = Uint8Array.from(tokens.slice(0, -1).flatMap((token) => token.bytes));
    expect(new TextDecoder("utf-8", { fatal: true }).decode(bytes)).toBe(" the cat 🐱 sat");
    expect(tokens.length).toBeGreaterThan(4);
    expect(tokens.every(({ logprob }) => logprob === -0.5)).toBe(true);
  });

  test("usage comes in a chunk of its own where it is asked for, and is null before", async () => {
    const chunks: ChatCompletionChunk[] = await all(
      await chat().create({ messages, n: 2, max_tokens: 3, stream: true, stream_options: { include_usage: true } }),
    );
    const last = chunks.pop();
    expect(last).toMatchObject({ choices: [], usage: { completion_tokens: 6 }, timings: { predicted_n: 6 } });
    expect(last?.usage?.prompt_tokens).toBe(engine.encode({ messages }).length);
    expect(chunks.every(({ usage, timings }) => usage === null && timings === undefined)).toBe(true);
  });

  test("several choices have numbers, and one request to the engine, with one seed", async () => {
    const asked = engine.asked.length;
    const { choices, usage } = await chat().create({ messages, n: 3, seed: 7, max_tokens: 2 });
    expect(choices.map(({ index, seed }) => [index, seed])).toEqual([
      [0, 7],
      [1, 7],
      [2, 7],
    ]);
    expect(choices.map(({ message }) => message.content)).toEqual(Array(3).fill(choices[0]?.message.content));
    expect(engine.asked.slice(asked)).toMatchObject([{ n: 3, seed: 7 }]);
    expect([usage.prompt_tokens, usage.completion_tokens]).toEqual([engine.encode({ messages }).length, 6]);
  });

  test("prompt_logprobs are those of score, by id", async () => {
    const completion = await chat().create({ messages, max_tokens: 1, prompt_logprobs: 1 });
    const tokens = engine.encode({ messages });
    expect(engine.scored.at(-1)).toMatchObject({ tokens, top: 1 });
    expect(completion.prompt_logprobs).toHaveLength(tokens.length);
    expect(completion.prompt_logprobs?.[0]).toBeNull();
    // At an odd place another token is the best one; at an even one it is the prompt's own.
    expect(completion.prompt_logprobs?.[1]?.[String(tokens[1])]).toMatchObject({ logprob: -1, rank: null });
    expect(Object.keys(completion.prompt_logprobs?.[1] ?? {})).toHaveLength(2);
    expect(completion.prompt_logprobs?.[2]).toEqual({
      [String(tokens[2])]: { logprob: -0.5, rank: 1, decoded_token: engine.model.tokenizer.tokenText(tokens[2] ?? 0) },
    });
  });

  test("leaving the chunks ends all of its work", async () => {
    const chunks = await chat().create({ messages, n: 3, max_tokens: 200, ignore_eos: true, stream: true });
    let seen = 0;
    for await (const _ of chunks) if (++seen === 12) break;
    await expect.poll(() => engine.running).toBe(0);
  });

  test("leaving them ends answers that are waited for", async () => {
    const silent = (request: GenerateRequest) =>
      new Promise<void>((resolve) => request.signal?.addEventListener("abort", () => resolve()));
    const stuck = await FakeEngine.load({ beforeToken: (i, request) => (i < 3 ? undefined : silent(request)) });
    const chunks = await new ChatCompletions(stuck).create({ messages, n: 2, max_tokens: 9, stream: true });
    let seen = 0;
    for await (const _ of chunks) if (++seen === 8) break; // two that say who speaks, six of text
    await expect.poll(() => stuck.running).toBe(0);
  });

  test("many answers are no leak: nothing warns of one", async () => {
    const warnings: string[] = [];
    const take = (warning: Error) => warnings.push(warning.message);
    process.on("warning", take);
    const { choices } = await chat().create(
      { messages, n: 40, max_tokens: 2 },
      { signal: new AbortController().signal },
    );
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", take);
    expect([choices.length, warnings]).toEqual([40, []]);
  });

  test("a signal ends all of its work", async () => {
    const slow = await FakeEngine.load({ beforeToken: () => new Promise((resolve) => setTimeout(resolve, 10)) });
    const stop = new AbortController();
    const working = new ChatCompletions(slow).create(
      { messages, n: 3, max_tokens: 200, ignore_eos: true },
      { signal: stop.signal },
    );
    await expect.poll(() => slow.running).toBe(3);
    stop.abort();
    await expect(working).rejects.toThrow("generate: aborted by its signal");
    await expect.poll(() => slow.running).toBe(0);
    expect(slow.made).toBeLessThan(100);
  });
});

describe("a text", () => {
  test("prompts as texts and ids, choices numbered prompt by prompt", async () => {
    const ids = engine.encode({ prompt: "Once upon" });
    for (const prompt of ["Once upon", ids, ["Once upon"], [ids]]) {
      const { choices } = await text({ prompt, max_tokens: 2 });
      expect(choices).toMatchObject([{ index: 0, text: " the cat", finish_reason: "length", logprobs: null }]);
      expect(engine.asked.at(-1)?.tokens).toEqual(ids);
    }
    const { choices, usage } = await text({ prompt: ["Once upon", ids], n: 2, max_tokens: 2 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(usage).toMatchObject({ prompt_tokens: 2 * ids.length, completion_tokens: 8 });
  });

  test("lm-eval's way to ask for the log-probabilities of prompts", async () => {
    // lm_eval/models/openai_completions.py: `_create_payload`, and `parse_logprobs` below.
    const prompts = [
      engine.encode({ prompt: "Once upon a time there was" }),
      engine.encode({ prompt: "The cat sat on" }),
    ];
    const contexts = [2, 1];
    const body = { model: "m", prompt: prompts, temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true };
    const { choices } = await text(body);
    const scores = choices.map(({ logprobs }, i) => {
      const tokens = logprobs?.token_logprobs.slice(contexts[i], -1) ?? [];
      const tops = logprobs?.top_logprobs.slice(contexts[i], -1) ?? [];
      const greedy = tokens.every((token, j) => token === Math.max(...Object.values(tops[j] ?? {})));
      return {
        count: tokens.length,
        sum: tokens.reduce<number>((sum, value) => sum + (value ?? Number.NaN), 0),
        greedy,
      };
    });
    const sumOf = (i: number) =>
      prompts[i]?.reduce((sum, _, at) => sum + (at < (contexts[i] ?? 0) ? 0 : at % 2 === 1 ? -1 : -0.5), 0);
    expect(scores.map(({ sum }) => sum)).toEqual([sumOf(0), sumOf(1)]);
    expect(scores.map(({ count }, i) => count + (contexts[i] ?? 0))).toEqual(prompts.map(({ length }) => length));
    expect(scores.map(({ greedy }) => greedy)).toEqual([false, false]);
  });

  test("echo comes before the answer; tokens, offsets and log-probabilities have one entry each", async () => {
    const { choices } = await text({ prompt: "Once upon a time", echo: true, logprobs: 0, max_tokens: 3 });
    const [choice] = choices;
    const logprobs = choice?.logprobs;
    expect(choice?.text).toBe("Once upon a time the cat ");
    expect(logprobs?.tokens.join("")).toMatch(/^Once upon a time the cat/);
    expect(
      logprobs?.text_offset.map((at, i) => logprobs.tokens.join("").indexOf(logprobs.tokens[i] ?? "", at) === at),
    ).not.toContain(false);
    expect(logprobs?.token_logprobs).toHaveLength(logprobs?.tokens.length ?? -1);
    expect(logprobs?.top_logprobs[0]).toBeNull();
    expect(Object.keys(logprobs?.top_logprobs[1] ?? {})).toEqual([logprobs?.tokens[1]]);
  });

  test("of two tokens with one name the better one is listed", () => {
    const { tokenizer } = engine.model;
    const [first = 0, second = 0] = Array.from({ length: tokenizer.size }, (_, id) => id).filter(
      (id) => tokenizer.tokenText(id) === "\uFFFD",
    );
    const top = [
      { token: first, logprob: -1 },
      { token: second, logprob: -2 },
    ];
    const { top_logprobs } = textLogprobs(engine, [{ token: second, logprob: -2, top }], 2, 0);
    expect(second).toBeGreaterThan(first);
    expect(top_logprobs).toEqual([{ "\uFFFD": -1 }]);
  });

  test("max_tokens 0 scores the prompt and generates nothing", async () => {
    const asked = engine.asked.length;
    const { choices, usage } = await text({ prompt: "Once upon a time", echo: true, logprobs: 2, max_tokens: 0 });
    expect(engine.asked.length).toBe(asked);
    expect(choices[0]).toMatchObject({ text: "Once upon a time", finish_reason: "length" });
    expect(choices[0]?.logprobs?.token_logprobs).toHaveLength(usage?.prompt_tokens ?? -1);
    expect(usage?.completion_tokens).toBe(0);
  });

  test("streamed, it joins to the whole, echo and offsets included", async () => {
    const body = { prompt: ["Once upon", "The end"], n: 2, echo: true, logprobs: 1, max_tokens: 4 };
    const whole = await text(body);
    const job = await textJob(engine, { ...body, stream: true }, "m");
    const chunks = await all(stream(job, job.events()));
    for (const choice of whole.choices) {
      const pieces = chunks.flatMap(({ choices }) => choices).filter(({ index }) => index === choice.index);
      expect(pieces.map(({ text }) => text).join("")).toBe(choice.text);
      expect(pieces.flatMap(({ logprobs }) => logprobs?.tokens ?? [])).toEqual(choice.logprobs?.tokens);
      expect(pieces.flatMap(({ logprobs }) => logprobs?.text_offset ?? [])).toEqual(choice.logprobs?.text_offset);
      expect(pieces.filter(({ finish_reason }) => finish_reason !== null)).toHaveLength(1);
    }
  });
});
