/** Flags that several commands share, and those that are documented and not there yet. */
import { KV_TYPES } from "../kernels/attention/kv_types.ts";
import type { FlagTable } from "./flags.ts";

/** Of every command. */
export const COMMON_FLAGS = {
  quiet: { help: "say only what went wrong" },
  verbose: { help: "say more, and where an error came from" },
  help: { short: "h", help: "this page" },
} as const satisfies FlagTable;

/** stdout as JSON. */
export const OUTPUT_FLAGS = {
  json: { help: "JSON lines on stdout and nothing else; short for -o json" },
  output: { short: "o", value: "table|json", help: "what stdout holds (default table)" },
} as const satisfies FlagTable;

/** Which adapter. */
export const ADAPTER_FLAGS = {
  adapter: {
    value: "SELECTOR",
    help: "part of an adapter's name, or its index in `ingle doctor` (default INGLE_ADAPTER, else the best)",
  },
} as const satisfies FlagTable;

/** Which model, and how it is loaded. */
export const MODEL_FLAGS = {
  model: {
    short: "m",
    value: "MODEL",
    help: "a folder with the hub's files, owner/name[@revision] of a model on the hub, an https:// folder, or `default`, the model that ships with ingle",
  },
  context: { short: "c", value: "TOKENS", help: "tokens that a sequence may have (default the model's, or what fits)" },
  "kv-memory": { value: "BYTES", help: "memory for keys and values, as 512MiB" },
  "kv-type": {
    value: KV_TYPES.join("|"),
    help: "how keys and values are kept (default f16); int8, with a scale a head's vector, takes about half of f16 and is less exact",
  },
  precision: {
    value: "auto|f32|f16|int8",
    help: "what matmuls multiply: f16 and int8 are faster on some GPUs and less exact (default auto: f32)",
  },
  ...ADAPTER_FLAGS,
} as const satisfies FlagTable;

/** Flags of the documented command line that no command that loads a model has yet. */
export const PLANNED_FLAGS: Readonly<Record<string, string>> = {
  lora: "merge the adapter into the model first",
};
