/** What a chat template is given, and the shapes in which templates take messages. */
import { isObject } from "./json.ts";

/** What a template is given, by who wrote it. */
export interface Inputs {
  readonly messages: readonly object[];
  readonly tools: unknown;
  readonly documents: unknown;
  readonly kwargs: Readonly<Record<string, unknown>>;
}

/** The inputs with every text changed but roles, which are names. */
export function mapContent(inputs: Inputs, change: (text: string) => string): Inputs {
  const map = (value: unknown): unknown => {
    if (typeof value === "string") return change(value);
    if (Array.isArray(value)) return value.map(map);
    if (!isObject(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, field]) => [change(key), map(field)]));
  };
  const message = (value: object): object => {
    return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, key === "role" ? field : map(field)]));
  };
  return {
    messages: inputs.messages.map(message),
    tools: map(inputs.tools),
    documents: map(inputs.documents),
    kwargs: Object.fromEntries(Object.entries(inputs.kwargs).map(([key, field]) => [key, map(field)])),
  };
}

/** A message whose tool calls have parsed arguments where these are JSON objects. */
export function parseArguments(message: object): object {
  if (!isObject(message) || !Array.isArray(message.tool_calls)) return message;
  const calls = message.tool_calls.map((call: unknown) => {
    if (!isObject(call) || !isObject(call.function) || typeof call.function.arguments !== "string") return call;
    const parsed = parsedObject(call.function.arguments);
    return parsed === undefined ? call : { ...call, function: { ...call.function, arguments: parsed } };
  });
  return { ...message, tool_calls: calls };
}

function parsedObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined; // models write broken JSON: then the template gets the text
  }
}

/** A message whose parts are one text. */
export function joinParts(message: object): object {
  if (!isObject(message) || !Array.isArray(message.content)) return message;
  const texts = message.content.map((part: unknown) => (isObject(part) ? String(part.text) : ""));
  return { ...message, content: texts.join("\n") };
}
