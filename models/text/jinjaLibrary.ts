/** What ingle uses of @huggingface/jinja, with types: its own declarations can't be resolved under Node's rules. */
import * as jinja from "@huggingface/jinja";

/** A value while a template runs; `type` is "StringValue", "ArrayValue" and so on. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  /** Methods of the value. */
  readonly builtins: ReadonlyMap<string, Value>;
  toString(): string;
}

/** A node of the syntax tree. */
export interface Node {
  readonly type: string;
  readonly [field: string]: unknown;
}

/** The variables of a scope. */
export interface Scope {
  /** Sets a variable to a JavaScript value and gives the value back as the template sees it. */
  set(name: string, value: unknown): Value;
}

/** The interpreter: every node, statement or expression, goes through `evaluate`. */
export interface TreeInterpreter {
  run(program: Node): Value;
  evaluate(node: Node | undefined, scope: Scope): Value;
}

/** The library's variables and its interpreter, as constructors. */
export const Environment: new () => Scope = jinja.Environment;
export const Interpreter: new (scope: Scope) => TreeInterpreter = jinja.Interpreter;

/** Parses a template with Hugging Face's settings. Throws SyntaxError. */
export function parseTemplate(source: string): Node {
  return jinja.parse(jinja.tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}

/** A JavaScript value as templates see it. */
export function toValue(value: unknown): Value {
  return new Environment().set("value", value);
}

/** Whether a field of a node is itself a node. */
export function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
}

/** The text of a string value, undefined for any other. */
export function textOf(value: Value | undefined): string | undefined {
  return value?.type === "StringValue" && typeof value.value === "string" ? value.value : undefined;
}

/** The number of a number value, undefined for any other. */
export function numberOf(value: Value | undefined): number | undefined {
  const isNumber = value?.type === "IntegerValue" || value?.type === "FloatValue";
  return isNumber && typeof value.value === "number" ? value.value : undefined;
}

/** The items of a list or tuple, undefined for any other. */
export function itemsOf(value: Value | undefined): readonly Value[] | undefined {
  return value !== undefined && Array.isArray(value.value) ? value.value : undefined;
}

/** The entries of a mapping, undefined for any other. */
export function entriesOf(value: Value | undefined): ReadonlyMap<string, Value> | undefined {
  return value?.type === "ObjectValue" && value.value instanceof Map ? value.value : undefined;
}
