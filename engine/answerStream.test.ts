/** Answers on their way out, with a detokenizer that says what a script says. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NO_TOKEN } from "../kernels/sample.ts";
import type { Tokenizer } from "../models/text/tokenizer.ts";
import { AnswerStream } from "./answerStream.ts";
import { InvalidRequestError, NonFiniteError } from "./errors.ts";
import type { ResolvedRequest } from "./request.ts";
import { GREEDY } from "./samplingParams.ts";
import { type RowOutput, Sequence } from "./sequence.ts";
import type { Part } from "./types.ts";

/** Token i says the i-th piece; what is still open at the end comes with `end`. */
function scripted(pieces: readonly string[], end = ""): Tokenizer {
  const none = () => {
    throw new Error("an answer has no use for this");
  };
  return {
    encode: none,
    encodeMarked: none,
    specialSpans: none,
    decode: none,
    tokenBytes: none,
    longestToken: 1,
    tokenText: none,
    stream: ({ skipSpecial }) => {
      expect(skipSpecial).toBe(true);
      return { push: (id) => pieces[id] ?? "", end: () => end };
    },
    specialIds: new Set(),
    specialTexts: [],
    namedTokens: new Map(),
    eosTokenIds: [],
    bosTokenId: undefined,
    size: pieces.length,
  };
}

function request(more: Partial<ResolvedRequest> = {}): ResolvedRequest {
  const sampling = { ...GREEDY, seed: 5 };
  return {
    tokens: [9],
    maxTokens: 100,
    n: 1,
    sampling,
    stop: [],
    stopIds: new Set(),
    top: 0,
    priority: 0,
    speculation: undefined,
    promptTop: null,
    minTokens: 0,
    ...more,
  };
}

function sequenceOf({ tokens, sampling, top }: ResolvedRequest): Sequence {
  return new Sequence({
    tokens,
    kind: "generate",
    sampling,
    top,
    logits: false,
    experts: false,
    ropeVariant: () => 0,
    onOutput: () => false,
    onError: () => {},
  });
}

const output = (token: number, more: Partial<RowOutput> = {}): RowOutput => ({
  token,
  logprob: -token,
  top: [],
  finite: true,
  ...more,
});

async function collect(answer: AnswerStream): Promise<Part[]> {
  const parts: Part[] = [];
  for await (const part of answer.parts()) parts.push(part);
  return parts;
}

/** Gives tokens 0, 1, 2 … until the answer ends. */
async function run(pieces: readonly string[], more: Partial<ResolvedRequest> = {}, end = "") {
  const resolved = request({ maxTokens: pieces.length, ...more });
  const sequence = sequenceOf(resolved);
  const answer = new AnswerStream(resolved, scripted(pieces, end));
  let token = 0;
  while (!answer.take(output(token++), sequence)) expect(token).toBeLessThanOrEqual(pieces.length);
  const parts = await collect(answer);
  const last = parts.at(-1);
  return { parts, sequence, text: parts.map(({ text }) => text).join(""), reason: last?.finishReason, last };
}

describe("AnswerStream", () => {
  test("says a part a token, and on the last one how it ended", async () => {
    const { parts, sequence, last } = await run(["a", "", "b"]);
    expect(parts.map(({ index, token, logprob, text, choice }) => [choice, index, token, logprob, text])).toEqual([
      [0, 0, 0, -0, "a"],
      [0, 1, 1, -1, ""],
      [0, 2, 2, -2, "b"],
    ]);
    expect(parts.map(({ finishReason }) => finishReason)).toEqual([null, null, "length"]);
    expect(parts[0]).not.toHaveProperty("usage");
    expect(parts[0]).not.toHaveProperty("top");
    expect(last?.usage).toEqual({ promptTokens: 1, completionTokens: 3, cachedTokens: 0 });
    expect(last?.seed).toBe(5);
    expect(last?.timings?.generatedMs).toBeGreaterThanOrEqual(0);
    expect(sequence.tokens).toEqual([9, 0, 1, 2]);
  });

  test.each([
    { name: "across tokens", pieces: ["x O", " P", " Q y"], stop: ["O P Q"], text: "x ", tokens: 3 },
    { name: "in one token with more", pieces: ["Why", "?\n", "So"], stop: ["\n"], text: "Why?", tokens: 2 },
    { name: "the one that is whole first", pieces: [" Al", "ice", ":"], stop: ["\n", "Alice:"], text: " ", tokens: 3 },
    { name: "overlapping", pieces: ["xa", "a", "b"], stop: ["aab", "ab"], text: "x", tokens: 3 },
    { name: "at the beginning", pieces: ["st", "op", "x"], stop: ["stop"], text: "", tokens: 2 },
  ])("stop strings: $name", async ({ pieces, stop, text, tokens }) => {
    const result = await run(pieces, { stop });
    expect([result.text, result.reason, result.parts.length]).toEqual([text, "stop", tokens]);
  });

  test("nothing but the most tokens ends the first minTokens", async () => {
    const result = await run(["stop", "b", "stop", "c"], { stop: ["stop"], minTokens: 1 });
    expect([result.text, result.reason]).toEqual(["stopb", "stop"]);
    // A stop string that begins there is not one.
    expect((await run(["st", "op", "c"], { stop: ["stop"], minTokens: 1 })).text).toBe("stopc");
    expect(await run(["stop", "b"], { stop: ["stop"], minTokens: 2 })).toMatchObject({
      text: "stopb",
      reason: "length",
    });
  });

  test("a prompt's log-probabilities come with the first part, and its pages are nobody's", async () => {
    const resolved = request({ maxTokens: 2 });
    const sequence = sequenceOf(resolved);
    sequence.cachedTokens = 1;
    const answer = new AnswerStream(resolved, scripted(["a", "b"]));
    answer.prompt = { tokens: [9], logprobs: [null], top: [null] };
    answer.take(output(0), sequence);
    answer.take(output(1), sequence);
    const parts = await collect(answer);
    expect(parts.map(({ prompt }) => prompt)).toEqual([answer.prompt, undefined]);
    expect(parts.at(-1)?.usage?.cachedTokens).toBe(0);
  });

  test("an answer that no token can go on is an error that says so", async () => {
    const resolved = request();
    const answer = new AnswerStream(resolved, scripted(["a"]));
    const take = () => answer.take(output(NO_TOKEN), sequenceOf(resolved));
    expect(take).toThrow(InvalidRequestError);
    expect(take).toThrow("allowedTokenIds, badWords and minTokens leave no token after 1");
  });

  test("half a stop string is held back, and said when the answer ends", async () => {
    const { parts, text, reason } = await run(["a\n", "\n", "b", "\n"], { stop: ["\n\nU"] });
    expect(parts.map((part) => part.text)).toEqual(["a", "", "\n\nb", "\n"]);
    expect([text, reason]).toEqual(["a\n\nb\n", "length"]);
  });

  test("half a character at the end comes with the last part", async () => {
    expect(await run(["é", ""], {}, "\ufffd")).toMatchObject({ text: "é\ufffd", reason: "length" });
    // …where it may still make a stop string whole.
    expect(await run(["é", ""], { stop: ["\ufffd"] }, "\ufffd")).toMatchObject({ text: "é", reason: "stop" });
  });

  test("a stop id ends the answer unsaid, with what was held back", async () => {
    const result = await run(["a", "\n", "</s>", "b"], { stopIds: new Set([2]), stop: ["\nU"] }, "!");
    expect(result).toMatchObject({ text: "a\n!", reason: "stop" });
    expect(result.parts.map(({ token }) => token)).toEqual([0, 1, 2]);
    expect(result.last?.usage?.completionTokens).toBe(3);
  });

  test("a stop id at the last token allowed is a stop", async () => {
    expect(await run(["a", "</s>"], { stopIds: new Set([1]) })).toMatchObject({ text: "a", reason: "stop" });
  });

  test("without a tokenizer parts have no text", async () => {
    const resolved = request({ maxTokens: 2 });
    const sequence = sequenceOf(resolved);
    const answer = new AnswerStream(resolved, undefined);
    expect([answer.take(output(3), sequence), answer.take(output(4), sequence)]).toEqual([false, true]);
    expect((await collect(answer)).map(({ text, token }) => [text, token])).toEqual([
      ["", 3],
      ["", 4],
    ]);
  });

  test("reports the best tokens where asked", async () => {
    const resolved = request({ maxTokens: 1, top: 2 });
    const best = [
      { token: 4, logprob: -0.1 },
      { token: 3, logprob: -3 },
    ];
    const answer = new AnswerStream(resolved, scripted(["a"]));
    answer.take(output(4, { top: best }), sequenceOf(resolved));
    expect((await collect(answer))[0]?.top).toEqual(best);
  });

  test("an error comes after the parts before it", async () => {
    const resolved = request();
    const answer = new AnswerStream(resolved, scripted(["a", "b"]));
    const sequence = sequenceOf(resolved);
    answer.take(output(0), sequence);
    answer.take(output(1), sequence);
    answer.fail(new Error("lost"));
    answer.fail(new Error("a second one"));
    const seen: string[] = [];
    const reading = (async () => {
      for await (const part of answer.parts()) seen.push(part.text);
    })();
    await expect(reading).rejects.toThrow("lost");
    expect(seen).toEqual(["a", "b"]);
  });

  test("an error behind the end changes nothing", async () => {
    const resolved = request({ maxTokens: 1 });
    const answer = new AnswerStream(resolved, scripted(["a"]));
    answer.take(output(0), sequenceOf(resolved));
    answer.fail(new Error("too late"));
    expect(await collect(answer)).toHaveLength(1);
  });

  test("refuses a token drawn from logits that are not finite", () => {
    const resolved = request();
    const answer = new AnswerStream(resolved, scripted(["a"]));
    const sequence = sequenceOf(resolved);
    expect(() => answer.take(output(0xffff_ffff, { finite: false }), sequence)).toThrow(NonFiniteError);
    expect(sequence.tokens).toEqual([9]);
  });

  test("a reader may come before, between or after the parts", async () => {
    const resolved = request({ maxTokens: 3 });
    const answer = new AnswerStream(resolved, scripted(["a", "b", "c"]));
    const sequence = sequenceOf(resolved);
    const parts = answer.parts();
    const first = parts.next();
    await new Promise((resolve) => setTimeout(resolve, 5));
    answer.take(output(0), sequence);
    answer.take(output(1), sequence);
    expect((await first).value).toMatchObject({ text: "a" });
    answer.take(output(2), sequence);
    expect((await parts.next()).value).toMatchObject({ text: "b" });
    expect((await parts.next()).value).toMatchObject({ text: "c", finishReason: "length" });
    expect((await parts.next()).done).toBe(true);
  });

  test("however a text is cut into tokens, the parts join to the text before the first stop", async () => {
    const stops = fc.array(fc.stringMatching(/^[abc\n]{1,4}$/), { maxLength: 3 });
    const pieces = fc.array(fc.stringMatching(/^[abc\n]{0,4}$/), { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(stops, pieces, async (stop, texts) => {
        const whole = texts.join("");
        const ends = stop.flatMap((each) => (whole.includes(each) ? [whole.indexOf(each) + each.length] : []));
        const { text, reason } = await run(texts, { stop });
        if (ends.length === 0) expect([text, reason]).toEqual([whole, "length"]);
        else {
          const end = Math.min(...ends); // complete first
          const starts = stop.flatMap((each) => (whole.slice(0, end).endsWith(each) ? [end - each.length] : []));
          expect([text, reason]).toEqual([whole.slice(0, Math.min(...starts)), "stop"]);
        }
      }),
    );
  });
});
