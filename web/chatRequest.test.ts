import { describe, expect, test } from "vitest";
import { chatRequest } from "./chatRequest.ts";

const options = { model: "default", raw: false, sampling: { temperature: 0 } };
const said = [
  { role: "user", content: "Hello." },
  { role: "assistant", content: "Hi!" },
];

describe("what is typed", () => {
  test("is a turn after those before it", () => {
    expect(chatRequest("And you?", said, options, true)).toEqual({
      kind: "turn",
      request: { temperature: 0, messages: [...said, { role: "user", content: "And you?" }] },
    });
  });

  test.each([
    ["Once upon a time", "continuation"],
    ["Once upon", "turn"],
    ["Tell me a story.", "turn"],
    ["He said “Let us go”", "turn"],
  ])("%s: the model that ships with ingle takes it as a %s", (text, kind) => {
    expect(chatRequest(text, [], options, true).kind).toBe(kind);
  });

  test("is a turn of another model, a chat that has begun, or a text where there is no template", () => {
    const text = "Once upon a time";
    expect(chatRequest(text, [], { ...options, model: "https://x.test/m" }, true).kind).toBe("turn");
    expect(chatRequest(text, said, options, true).kind).toBe("turn");
    expect(chatRequest("Why?", said, options, false).request).toEqual({ temperature: 0, prompt: "Why?" });
    expect(chatRequest("Why?", said, { ...options, raw: true }, true).request).toEqual({
      temperature: 0,
      prompt: "Why?",
    });
  });
});
