/** Messages of a chat, as OpenAI's API and Hugging Face's templates have them, and the check of what a caller passes for them. */
import { describe, isObject } from "./json.ts";

/** A part of a message's content; only text is supported. */
export interface TextPart {
  readonly type: "text";
  readonly text: string;
}

/** A call of a tool that the assistant made. `arguments` is JSON text or the parsed object. */
export interface ToolCall {
  readonly id?: string;
  readonly type?: string;
  readonly function: { readonly name: string; readonly arguments: string | Readonly<Record<string, unknown>> };
}

/** One message. Fields that only some templates know (`reasoning_content`, `tool_call_id`, `name` …) pass through to the template. */
export interface Message {
  readonly role: string;
  readonly content: string | null | readonly TextPart[];
  readonly tool_calls?: readonly ToolCall[];
  readonly [field: string]: unknown;
}

const ROLE = /^[A-Za-z][A-Za-z0-9_. -]{0,63}$/; // templates write roles between control characters: none may be part of one

/** The messages that `value` holds. Throws TypeError that names the field, as in `messages[2].content: is the number 3, expected …`. */
export function checkMessages(value: unknown): Message[] {
  if (!Array.isArray(value)) throw fieldTypeError("messages", value, "a list of messages");
  if (value.length === 0) throw new TypeError("messages: is empty, expected at least one message");
  return value.map((message: unknown, i) => checkMessage(message, `messages[${i}]`));
}

function checkMessage(value: unknown, where: string): Message {
  if (!isObject(value)) throw fieldTypeError(where, value, "an object with role and content");
  const { role, content, tool_calls: calls } = value;
  if (typeof role !== "string" || !ROLE.test(role)) {
    throw fieldTypeError(`${where}.role`, role, "a name of letters, digits, spaces and _ . -");
  }
  const toolCalls =
    calls === undefined || calls === null ? {} : { tool_calls: checkToolCalls(calls, `${where}.tool_calls`) };
  const { tool_calls: _, ...rest } = value;
  return { ...rest, role, content: checkContent(content, `${where}.content`, "tool_calls" in toolCalls), ...toolCalls };
}

function checkContent(value: unknown, where: string, mayMiss: boolean): Message["content"] {
  if (typeof value === "string") return value;
  if (value === null || (value === undefined && mayMiss)) return null;
  if (!Array.isArray(value))
    throw fieldTypeError(where, value, 'a string, null or a list of {"type": "text", "text": …}');
  return value.map((part: unknown, i) => {
    const at = `${where}[${i}]`;
    if (!isObject(part)) throw fieldTypeError(at, part, 'an object {"type": "text", "text": …}');
    if (part.type !== "text") throw fieldTypeError(`${at}.type`, part.type, '"text", the only kind that is supported');
    if (typeof part.text !== "string") throw fieldTypeError(`${at}.text`, part.text, "a string");
    return { type: "text", text: part.text };
  });
}

function checkToolCalls(value: unknown, where: string): ToolCall[] {
  if (!Array.isArray(value)) throw fieldTypeError(where, value, "a list of tool calls");
  return value.map((call: unknown, i) => {
    const at = `${where}[${i}]`;
    if (!isObject(call)) throw fieldTypeError(at, call, "an object with function");
    const called = call.function;
    if (!isObject(called)) throw fieldTypeError(`${at}.function`, called, "an object with name and arguments");
    const { name, arguments: input } = called;
    if (typeof name !== "string") throw fieldTypeError(`${at}.function.name`, name, "a string");
    if (typeof input !== "string" && !isObject(input)) {
      throw fieldTypeError(`${at}.function.arguments`, input, "JSON text or an object");
    }
    return { ...call, function: { ...called, name, arguments: input } };
  });
}

function fieldTypeError(where: string, value: unknown, expected: string): TypeError {
  return new TypeError(`${where}: is ${describe(value)}, expected ${expected}`);
}
