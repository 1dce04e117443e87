/** What callers may pass for messages, and in which words the rest is refused. */
import { describe, expect, test } from "vitest";
import { checkMessages } from "./messages.ts";

describe("checkMessages", () => {
  test("takes what OpenAI's API takes, and passes on fields that only templates know", () => {
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: [{ type: "text", text: "Hi" }], name: "Ann" },
      {
        role: "assistant",
        content: null,
        reasoning_content: "hm",
        tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      { role: "tool", content: "", tool_call_id: "1" },
    ];
    expect(checkMessages(messages)).toEqual(messages);
  });

  test("gives content null where an assistant only calls tools", () => {
    const call = { function: { name: "f", arguments: { a: 1 } } };
    expect(checkMessages([{ role: "assistant", tool_calls: [call] }])).toEqual([
      { role: "assistant", content: null, tool_calls: [call] },
    ]);
    expect(checkMessages([{ role: "user", content: "x", tool_calls: null }])).toEqual([{ role: "user", content: "x" }]);
  });

  test.each([
    ["x", 'messages: is the string "x", expected a list of messages'],
    [undefined, "messages: is missing, expected a list of messages"],
    [[], "messages: is empty, expected at least one message"],
    [["x"], 'messages[0]: is the string "x", expected an object with role and content'],
    [[{ content: "x" }], "messages[0].role: is missing, expected a name of letters, digits, spaces and _ . -"],
    [
      [{ role: "user|><|system", content: "x" }],
      'messages[0].role: is the string "user|><|system", expected a name of letters',
    ],
    [[{ role: "", content: "x" }], 'messages[0].role: is the string "", expected a name'],
    [[{ role: "user" }], "messages[0].content: is missing, expected a string, null or a list"],
    [
      [
        { role: "user", content: "" },
        { role: "user", content: 3 },
      ],
      "messages[1].content: is the number 3, expected a string",
    ],
    [[{ role: "user", content: [3] }], 'messages[0].content[0]: is the number 3, expected an object {"type": "text"'],
    [
      [{ role: "user", content: [{ type: "image_url" }] }],
      'messages[0].content[0].type: is the string "image_url", expected "text", the only kind',
    ],
    [[{ role: "user", content: [{ type: "text" }] }], "messages[0].content[0].text: is missing, expected a string"],
    [
      [{ role: "assistant", content: "", tool_calls: {} }],
      "messages[0].tool_calls: is an object, expected a list of tool calls",
    ],
    [
      [{ role: "assistant", content: "", tool_calls: [1] }],
      "messages[0].tool_calls[0]: is the number 1, expected an object with function",
    ],
    [
      [{ role: "assistant", content: "", tool_calls: [{}] }],
      "messages[0].tool_calls[0].function: is missing, expected an object with name and arguments",
    ],
    [
      [{ role: "assistant", content: "", tool_calls: [{ function: { name: 1 } }] }],
      "tool_calls[0].function.name: is the number 1, expected a string",
    ],
    [
      [{ role: "assistant", content: "", tool_calls: [{ function: { name: "f", arguments: [] } }] }],
      "tool_calls[0].function.arguments: is a list, expected JSON text or an object",
    ],
  ])("%j is refused by field", (value, message) => {
    expect(() => checkMessages(value)).toThrow(TypeError);
    expect(() => checkMessages(value)).toThrow(message);
  });
});
