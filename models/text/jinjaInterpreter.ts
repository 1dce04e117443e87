/**
 * The library's interpreter of templates, bounded, and corrected where it gives values JavaScript's meaning and not Python's.
 *
 * The library walks the tree through one method, `evaluate`; overriding it bounds every step and replaces the nodes that differ:
 * what is printed (`True`, `None`), strings by code points, `strip` with an argument, `+` of text and something else, `x.items()`
 * of a mapping that has a key "items".
 */
import { ChatTemplateError, UnsupportedModelError } from "../errors.ts";
import {
  entriesOf,
  Interpreter,
  isNode,
  itemsOf,
  type Node,
  numberOf,
  type Scope,
  type TreeInterpreter,
  textOf,
  toValue,
  type Value,
} from "./jinjaLibrary.ts";
import { type Arguments, filtered, printed, textMethod } from "./jinjaTexts.ts";
import { equal, strftime } from "./pythonText.ts";

/** What one rendering may use. Time is looked at between steps, and a step is bounded by the lengths. */
export interface TemplateLimits {
  /** Nodes evaluated, and more for long values. */
  readonly steps: number;
  /** Milliseconds. */
  readonly time: number;
  /** UTF-16 units of any one string, the output included. */
  readonly length: number;
}

/** What a template is rendered with. */
export interface RenderOptions {
  readonly limits: TemplateLimits;
  /** What `strftime_now` calls now. */
  readonly now: Date;
  /** Changes the template's own strings before they are used. */
  readonly literal?: (text: string) => string;
}

const UNTIMED_STEPS = 20_000; // about 400 messages, or 10 ms; a busy machine must not make them an attack
const MAX_ITEMS = 10_000; // of a list: the library needs some 5 µs an item even for an empty loop
const MAPPING_METHODS: ReadonlySet<string> = new Set(["items", "keys", "values", "get"]);

/** Stands in for an expression that has been evaluated. */
function evaluated(value: Value): Node {
  return { type: "Evaluated", value };
}

/** Runs a tree in which what is printed is in nodes of type Print. */
export class BoundedInterpreter extends Interpreter implements TreeInterpreter {
  readonly #options: RenderOptions;
  readonly #deadline: number;
  readonly #literals = new Map<string, Value>();
  #steps = 0;
  readonly #checkLength = (length: number): void => {
    if (length > this.#options.limits.length) throw this.#exceeded(`${this.#options.limits.length} characters`);
  };

  constructor(scope: Scope, options: RenderOptions) {
    super(scope);
    this.#options = options;
    this.#deadline = performance.now() + options.limits.time;
  }

  /** The variables that every template has. */
  globals(): Record<string, unknown> {
    return {
      true: true,
      True: true,
      false: false,
      False: false,
      none: null,
      None: null,
      raise_exception: (message: unknown) => {
        throw new ChatTemplateError(`chat template: ${message}`);
      },
      range: (...bounds: unknown[]) => range(bounds),
      strftime_now: (format: unknown) => strftime(this.#options.now, String(format)),
    };
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    this.#work(1);
    const value = (node === undefined ? undefined : this.#special(node, scope)) ?? super.evaluate(node, scope);
    this.#checkSize(value);
    return value;
  }

  /** Counts work done: a node is one step, a long value more. The clock is asked only after what any honest chat needs. */
  #work(steps: number): void {
    const before = this.#steps;
    this.#steps += steps;
    const { limits } = this.#options;
    if (this.#steps > limits.steps) throw this.#exceeded(`${limits.steps} steps`);
    const due = this.#steps > UNTIMED_STEPS && Math.floor(before / 64) !== Math.floor(this.#steps / 64);
    if (due && performance.now() > this.#deadline) throw this.#exceeded(`${limits.time} ms`);
  }

  #checkSize(value: Value): void {
    const text = typeof value.value === "string" ? value.value.length : 0;
    const items = Array.isArray(value.value) ? value.value.length : 0;
    this.#checkLength(text);
    if (items > MAX_ITEMS) throw this.#exceeded(`${MAX_ITEMS} items`);
    this.#work(Math.floor(text / 1024) + items);
  }

  #exceeded(limit: string): ChatTemplateError {
    return new ChatTemplateError(`chat template: passed the limit of ${limit}; use another template or fewer messages`);
  }

  /** The value of a node that Python has otherwise than the library, or undefined. */
  #special(node: Node, scope: Scope): Value | undefined {
    switch (node.type) {
      case "Evaluated":
        return node.value as Value; // made by evaluated()
      case "Print":
        return this.#printed(this.#child(node, "expression", scope));
      case "StringLiteral":
        return this.#literal(String(node.value));
      case "TupleLiteral":
        return super.evaluate({ ...node, type: "ArrayLiteral" }, scope); // the library unpacks lists only
      case "BinaryExpression":
        return this.#binary(node, scope);
      case "MemberExpression":
        return this.#member(node, scope);
      case "CallExpression":
        return this.#call(node, scope);
      case "FilterExpression":
        return this.#filter(node, scope);
      case "For":
        return this.#for(node, scope);
      default:
        return undefined;
    }
  }

  /** One of the template's own strings, as `options.literal` changes it. */
  #literal(text: string): Value | undefined {
    const change = this.#options.literal;
    if (change === undefined) return undefined;
    const known = this.#literals.get(text);
    if (known !== undefined) return known;
    const value = toValue(change(text));
    this.#literals.set(text, value);
    return value;
  }

  #printed(value: Value): Value {
    return value.type === "StringValue" ? value : toValue(printed(value, this.#checkLength));
  }

  #child(node: Node, field: string, scope: Scope): Value {
    const child = node[field];
    return this.evaluate(isNode(child) ? child : undefined, scope);
  }

  #binary(node: Node, scope: Scope): Value | undefined {
    const operator = isNode(node.operator) ? String(node.operator.value) : "";
    if (!["~", "+", "*", "%", "==", "!=", "<", ">", "<=", ">="].includes(operator)) return undefined;
    const left = this.#child(node, "left", scope);
    const right = this.#child(node, "right", scope);
    const value = this.#operate(operator, left, right);
    return value ?? super.evaluate({ ...node, left: evaluated(left), right: evaluated(right) }, scope);
  }

  #operate(operator: string, left: Value, right: Value): Value | undefined {
    if (operator === "==" || operator === "!=") return toValue(equal(left, right) === (operator === "=="));
    if (operator === "~") return toValue(printed(left, this.#checkLength) + printed(right, this.#checkLength));
    const [a, b] = [textOf(left), textOf(right)];
    if (operator === "%") {
      const [x, y] = [numberOf(left), numberOf(right)];
      return x === undefined || y === undefined || y === 0 ? undefined : toValue(((x % y) + y) % y);
    }
    if (operator === "*") {
      const [text, times] = a === undefined ? [b, numberOf(left)] : [a, numberOf(right)];
      if (text === undefined || times === undefined) return undefined;
      this.#checkLength(text.length * times);
      return toValue(text.repeat(Math.max(0, times)));
    }
    if (a !== undefined && b !== undefined && operator !== "+") {
      const [x, y] = operator === "<" || operator === ">=" ? [a, b] : [b, a];
      return toValue(operator.length === 1 ? x < y : x >= y);
    }
    if (operator === "+" && (a === undefined) !== (b === undefined)) {
      throw new ChatTemplateError(
        `chat template: adds ${typeName(left)} and ${typeName(right)}, expected two texts; check that content is a string`,
      );
    }
    return undefined;
  }

  #member(node: Node, scope: Scope): Value | undefined {
    const object = this.#child(node, "object", scope);
    const text = textOf(object);
    const rest = { ...node, object: evaluated(object) };
    const { property } = node;
    if (object.type === "UndefinedValue") {
      throw new ChatTemplateError("chat template: looks into a value that is not defined; check the messages' fields");
    }
    if (!isNode(property) || property.type === "SliceExpression") return super.evaluate(rest, scope);
    if (node.computed !== true) {
      const name = String(property.value);
      const method =
        entriesOf(object) !== undefined && MAPPING_METHODS.has(name) ? object.builtins.get(name) : undefined;
      return method ?? super.evaluate(rest, scope);
    }
    const key = this.evaluate(property, scope);
    const index = numberOf(key);
    if (text !== undefined && index !== undefined) return toValue(Array.from(text).at(index));
    return super.evaluate({ ...rest, property: evaluated(key) }, scope);
  }

  /** A loop, which may also be over the characters of a text. */
  #for(node: Node, scope: Scope): Value | undefined {
    const { iterable } = node;
    const filtered = isNode(iterable) && iterable.type === "SelectExpression" && isNode(iterable.lhs);
    const source = this.#child(filtered ? iterable : node, filtered ? "lhs" : "iterable", scope);
    const text = textOf(source);
    const items = evaluated(text === undefined ? source : toValue(Array.from(text)));
    return super.evaluate({ ...node, iterable: filtered ? { ...iterable, lhs: items } : items }, scope);
  }

  /** A list of values that exist already. */
  #list(items: readonly Value[], scope: Scope): Value {
    return super.evaluate({ type: "ArrayLiteral", value: items.map(evaluated) }, scope);
  }

  /** `dict(key=value)`, which the library does not know. */
  #dict(args: unknown, scope: Scope): Value | undefined {
    const pairs = (Array.isArray(args) ? args : []).map((node: unknown): [Node, unknown] | undefined => {
      const isPair = isNode(node) && node.type === "KeywordArgumentExpression" && isNode(node.key);
      return isPair && isNode(node.key) ? [{ type: "StringLiteral", value: node.key.value }, node.value] : undefined;
    });
    const known = pairs.filter((pair) => pair !== undefined);
    return known.length < pairs.length
      ? undefined
      : super.evaluate({ type: "ObjectLiteral", value: new Map(known) }, scope);
  }

  #call(node: Node, scope: Scope): Value | undefined {
    const { callee } = node;
    if (isNode(callee) && callee.type === "Identifier" && callee.value === "dict") return this.#dict(node.args, scope);
    if (!isNode(callee) || callee.type !== "MemberExpression" || callee.computed === true || !isNode(callee.property)) {
      return undefined;
    }
    const name = String(callee.property.value);
    const object = this.#child(callee, "object", scope);
    const text = textOf(object);
    const given = text === undefined ? undefined : this.#arguments(node.args, scope);
    if (text !== undefined && given !== undefined) {
      const value = textMethod(name, text, given, this.#checkLength);
      if (value !== undefined) return value;
      if (!object.builtins.has(name)) throw notSupported(`.${name}() of a text`);
    } else if (entriesOf(object) !== undefined && !entriesOf(object)?.has(name) && !object.builtins.has(name)) {
      throw notSupported(`.${name}() of a mapping`);
    } else if (itemsOf(object) !== undefined) throw notSupported(`.${name}() of a list`);
    return super.evaluate({ ...node, callee: { ...callee, object: evaluated(object) } }, scope);
  }

  /** The arguments of a call, or undefined where they are unpacked from a list or a mapping. */
  #arguments(nodes: unknown, scope: Scope): Arguments | undefined {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const node of Array.isArray(nodes) ? nodes.filter(isNode) : []) {
      if (node.type === "SpreadExpression" || node.type === "KeywordSpreadExpression") return undefined;
      if (node.type !== "KeywordArgumentExpression") positional.push(this.evaluate(node, scope));
      else named.set(isNode(node.key) ? String(node.key.value) : "", this.#child(node, "value", scope));
    }
    return (position, name) => positional[position] ?? (name === undefined ? undefined : named.get(name));
  }

  #filter(node: Node, scope: Scope): Value | undefined {
    const { filter } = node;
    if (!isNode(filter)) return undefined;
    const call = filter.type === "CallExpression" && isNode(filter.callee) ? filter : undefined;
    const name = String(call === undefined ? filter.value : isNode(call.callee) ? call.callee.value : "");
    const operand = this.#child(node, "operand", scope);
    const given = this.#arguments(call?.args, scope);
    const items = itemsOf(operand);
    const selects = name === "selectattr" || name === "rejectattr";
    if (selects && items !== undefined && given !== undefined && textOf(given(1)) === "undefined") {
      const wanted = name === "selectattr"; // the library takes a missing attribute for one that fails every test
      const missing = (item: Value) => !entriesOf(item)?.has(textOf(given(0)) ?? "");
      return this.#list(
        items.filter((item) => missing(item) === wanted),
        scope,
      );
    }
    const value = given === undefined ? undefined : filtered(name, operand, given, this.#checkLength);
    return value ?? super.evaluate({ ...node, operand: evaluated(operand) }, scope);
  }
}

function notSupported(what: string): UnsupportedModelError {
  return new UnsupportedModelError(`chat template: ${what} is not supported; pass another template`);
}

function typeName(value: Value): string {
  return value.type.replace("Value", "").toLowerCase();
}

/** Python's range(), of at most 10,000 numbers. */
function range(bounds: readonly unknown[]): number[] {
  const numbers = bounds.map((bound) => {
    if (typeof bound !== "number" || !Number.isInteger(bound)) {
      throw new ChatTemplateError(`chat template: range() was given ${String(bound)}, expected whole numbers`);
    }
    return bound;
  });
  const [start = 0, stop = 0, step = 1] = numbers.length === 1 ? [0, ...numbers] : numbers;
  if (step === 0) throw new ChatTemplateError("chat template: range() was given a step of 0, expected another");
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > MAX_ITEMS) {
    throw new ChatTemplateError(`chat template: range() of ${count} numbers, at most ${MAX_ITEMS} are allowed`);
  }
  return Array.from({ length: count }, (_, i) => start + i * step);
}
