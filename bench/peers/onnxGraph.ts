/**
 * ONNX models, written: nodes, constants, inputs and outputs as the bytes of a ModelProto.
 *
 * Source: onnx.proto of ONNX 1.17; numbers are its fields'.
 */
import { Message } from "./protobuf.ts";

/** Types of tensors by ONNX's number. */
export const TYPE = { float: 1, uint8: 2, int32: 6, int64: 7 } as const;
/** A size, or the name of one that is known when the model runs. */
export type Dim = number | string;

/** Attributes of a node: whole numbers are INT, others FLOAT unless they say so. */
export type Attributes = Readonly<Record<string, number | { readonly float: number }>>;

const IR_VERSION = 10; // of ONNX 1.17
const OPSET = 18;
const MICROSOFT = "com.microsoft"; // ONNX Runtime's own operators

/** Collects a graph; node by node, each named after its first output. */
export class OnnxGraph {
  readonly #graph = new Message().text(2, "ingle bench peers");

  /** A node of ONNX itself; returns its first output. */
  node(type: string, inputs: readonly string[], outputs: readonly string[], attributes: Attributes = {}): string {
    return this.#node("", type, inputs, outputs, attributes);
  }

  /** A node of ONNX Runtime's own. Unused inputs and outputs are "". */
  contrib(type: string, inputs: readonly string[], outputs: readonly string[], attributes: Attributes = {}): string {
    return this.#node(MICROSOFT, type, inputs, outputs, attributes);
  }

  /** A constant; `data` is kept until `finish`. Returns its name. */
  constant(
    name: string,
    type: keyof typeof TYPE,
    shape: readonly number[],
    data: Uint8Array | Float32Array | Int32Array | BigInt64Array,
  ): string {
    const tensor = new Message();
    for (const size of shape) tensor.integer(1, size);
    tensor.integer(2, TYPE[type]).text(8, name);
    tensor.bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    this.#graph.message(5, tensor);
    return name;
  }

  input(name: string, type: keyof typeof TYPE, shape: readonly Dim[]): string {
    this.#graph.message(11, valueInfo(name, type, shape));
    return name;
  }

  output(name: string, type: keyof typeof TYPE, shape: readonly Dim[]): void {
    this.#graph.message(12, valueInfo(name, type, shape));
  }

  /** The bytes of the model. */
  finish(): Uint8Array {
    const model = new Message().integer(1, IR_VERSION).text(2, "ingle");
    for (const [domain, version] of [["", OPSET] as const, [MICROSOFT, 1] as const]) {
      model.message(8, new Message().text(1, domain).integer(2, version));
    }
    return model.message(7, this.#graph).finish();
  }

  #node(
    domain: string,
    type: string,
    inputs: readonly string[],
    outputs: readonly string[],
    attributes: Attributes,
  ): string {
    const name = outputs[0] ?? "";
    const node = new Message();
    for (const input of inputs) node.text(1, input);
    for (const output of outputs) node.text(2, output);
    node.text(3, `${name}/${type}`).text(4, type);
    for (const [key, value] of Object.entries(attributes)) node.message(5, attribute(key, value));
    this.#graph.message(1, node.text(7, domain));
    return name;
  }
}

function attribute(name: string, value: number | { readonly float: number }): Message {
  const message = new Message().text(1, name);
  if (typeof value !== "number") return message.float(2, value.float).integer(20, 1);
  return message.integer(3, value).integer(20, 2);
}

function valueInfo(name: string, type: keyof typeof TYPE, shape: readonly Dim[]): Message {
  const dims = new Message();
  for (const size of shape) {
    dims.message(1, typeof size === "number" ? new Message().integer(1, size) : new Message().text(2, size));
  }
  const tensor = new Message().integer(1, TYPE[type]).message(2, dims);
  return new Message().text(1, name).message(2, new Message().message(1, tensor));
}
