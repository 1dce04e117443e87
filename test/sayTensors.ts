/** Tensors said another way: heads stored twice, buffers that nobody reads, small tensors in f32, other names of modules, experts in one tensor. */
import { behind, changed, items, numbersOf, renamed, type Saying, stack, turned } from "./saying.ts";
import { floats, type TinyModel, type TinyTensor } from "./tinyModel.ts";

const EMBEDDING = /(^|\.)(embed_tokens|wte)\.weight$/;
const BUFFERS = /\.(inv_freq|attn\.bias|attention\.bias|masked_bias)$/;

function withHead({ config, tensors }: TinyModel, tied: boolean): TinyModel | null {
  const name = [...tensors.keys()].find((it) => EMBEDDING.test(it));
  if (config.tie_word_embeddings !== true || name === undefined) return null;
  const path = name.replace(/weight$/, "");
  const head = `${name.startsWith("language_model.") ? "language_model." : ""}lm_head.`;
  const copies = [...tensors].filter(([it]) => it.startsWith(path)); // scales too
  const all = new Map([...tensors, ...copies.map(([it, tensor]) => [it.replace(path, head), tensor] as const)]);
  return { config: { ...config, tie_word_embeddings: tied }, tensors: all };
}

/** The embedding is the head, and is stored as one too. */
export const tiedTwice: Saying = { name: "a tied head, stored too", say: (model) => withHead(model, true) };

/** Not tied: a head that equals the embedding. */
export const untied: Saying = {
  name: "a head of its own that is the embedding",
  say: (model) => withHead(model, false),
};

/** Buffers that tools stored, or none where there are some. */
export const buffers: Saying = {
  name: "known buffers, there or not",
  say({ config, tensors }) {
    const without = new Map([...tensors].filter(([name]) => !BUFFERS.test(name)));
    if (without.size < tensors.size) return { config, tensors: without };
    const frequencies = floats(new Float32Array(8).fill(0.5), "F32", [8]);
    const layers = new Set([...tensors.keys()].flatMap((name) => /^(.+layers\.\d+)\./.exec(name)?.[1] ?? []));
    const extra = [...layers].map((layer) => [`${layer}.self_attn.rotary_emb.inv_freq`, frequencies] as const);
    const ids: TinyTensor = { dtype: "I64", shape: [1, 2], bytes: new Uint8Array(16) };
    const more = [["model.embeddings.position_ids", ids] as const, ["mtp.fc.weight", frequencies] as const];
    return { config, tensors: new Map([...extra, ...tensors, ...more]) };
  },
};

/** Norms, biases and sinks in f32, which is exact. */
export const smallInF32: Saying = {
  name: "norms and biases in f32",
  say(model) {
    const isSmall = ({ dtype, shape }: TinyTensor) => shape.length === 1 && (dtype === "F16" || dtype === "BF16");
    if (![...model.tensors.values()].some(isSmall)) return null;
    return changed(model, (tensor) => (isSmall(tensor) ? floats(numbersOf(tensor), "F32", tensor.shape) : tensor));
  },
};

/** Modules by the other names that transformers has for them. */
export const otherNames: Saying = {
  name: "modules by their other names",
  say(model) {
    const { config } = model;
    if (config.model_type === "gpt2") return renamed(model, (name) => `transformer.${name}`);
    if (config.model_type === "gpt_neox") return renamed(model, (name) => name.replace(/^embed_out\./, "lm_head."));
    if (config.model_type === "gemma3_text") return withinGemma3(model);
    return null;
  },
};

/** Gemma 3's text model as a part of the one that sees images. */
function withinGemma3(model: TinyModel): TinyModel {
  const { config } = model;
  const newer = Object.hasOwn(config, "dtype");
  const { tensors } = renamed(model, (name) => {
    if (!newer) return `language_model.${name}`;
    return name.replace(/^model\./, "model.language_model.");
  });
  const architectures = ["Gemma3ForConditionalGeneration"];
  const { tie_word_embeddings } = config;
  return { config: { model_type: "gemma3", architectures, tie_word_embeddings, text_config: config }, tensors };
}

/** An expert's projections, by Mixtral's names. */
const PROJECTIONS = { gate_proj: "w1", up_proj: "w3", down_proj: "w2" } as const;

/** Experts that are a module each, by the path before `experts`; null where there are none. */
function expertsOf({ tensors }: TinyModel): string[] | null {
  const paths = new Set([...tensors.keys()].flatMap((name) => /^(.+)\.experts\.\d+\./.exec(name)?.[1] ?? []));
  return paths.size === 0 ? null : [...paths];
}

/** One projection of all experts as one tensor. */
function stackOf({ tensors }: TinyModel, path: string, projection: keyof typeof PROJECTIONS): TinyTensor {
  const all: TinyTensor[] = [];
  for (let e = 0; ; e++) {
    const expert = `${path}.experts.${e}`;
    const tensor =
      tensors.get(`${expert}.${projection}.weight`) ?? tensors.get(`${expert}.${PROJECTIONS[projection]}.weight`);
    if (tensor === undefined) return stack(all);
    all.push(tensor);
  }
}

/** Experts as transformers 5 has them: gate and up of all behind each other in one tensor, all downs in another. */
export const fusedExperts: Saying = {
  name: "experts in one tensor, gate and up together",
  say(model) {
    const paths = expertsOf(model);
    if (paths === null) return null;
    const newer = (name: string) => name.replace(".block_sparse_moe", ".mlp"); // Mixtral's
    const { config, tensors } = renamed(model, (name) => (/\.experts\.\d+\./.test(name) ? undefined : newer(name)));
    for (const path of paths) {
      const ups = items(stackOf(model, path, "up_proj"));
      const both = items(stackOf(model, path, "gate_proj")).map((it, e) => behind([it, ...ups.slice(e, e + 1)]));
      tensors.set(`${newer(path)}.experts.gate_up_proj`, stack(both));
      tensors.set(`${newer(path)}.experts.down_proj`, stackOf(model, path, "down_proj"));
    }
    return { config, tensors };
  },
};

/** Experts as MLX has them: a stack a projection; gpt-oss's, whose gate and up lie by turns in (inputs, outputs), as (outputs, inputs). */
export const stackedExperts: Saying = {
  name: "experts as a stack a projection",
  say(model) {
    if (model.config.model_type === "gpt_oss") return gptOssStacks(model);
    if (model.config.model_type === "granitemoe") return graniteStacks(model);
    const paths = expertsOf(model);
    if (paths === null) return null;
    const { config, tensors } = renamed(model, (name) => (/\.experts\.\d+\./.test(name) ? undefined : name));
    for (const path of paths) {
      for (const projection of ["gate_proj", "up_proj", "down_proj"] as const)
        tensors.set(`${path}.switch_mlp.${projection}.weight`, stackOf(model, path, projection));
    }
    return { config, tensors };
  },
};

function graniteStacks({ config, tensors }: TinyModel): TinyModel {
  const half = (tensor: TinyTensor, second: boolean) =>
    stack(
      items(tensor).map((one) => {
        const rows = items(one);
        return stack(rows.slice(second ? rows.length / 2 : 0, second ? rows.length : rows.length / 2));
      }),
    );
  const entries = [...tensors].flatMap(([name, tensor]): (readonly [string, TinyTensor])[] => {
    const stacked = (projection: string) => name.replace(/(in|out)put_linear/, `switch_mlp.${projection}`);
    if (name.endsWith("output_linear.weight")) return [[stacked("down_proj"), tensor]];
    if (!name.endsWith("input_linear.weight")) return [[name, tensor]];
    return [
      [stacked("gate_proj"), half(tensor, false)],
      [stacked("up_proj"), half(tensor, true)],
    ];
  });
  return { config, tensors: new Map(entries) };
}

function gptOssStacks({ config, tensors }: TinyModel): TinyModel {
  const byTurns = (tensor: TinyTensor, first: number) =>
    stack(items(tensor).map((one) => stack(items(one).filter((_, i) => i % 2 === first))));
  const entries = [...tensors].flatMap(([name, tensor]): (readonly [string, TinyTensor])[] => {
    const [, path = "", what = ""] = /^(.+\.experts)\.(.+)$/.exec(name) ?? [];
    switch (what) {
      case "gate_up_proj":
        return ["gate_proj", "up_proj"].map((it, i) => [`${path}.${it}.weight`, byTurns(turned(tensor), i)]);
      case "gate_up_proj_bias":
        return ["gate_proj", "up_proj"].map((it, i) => [`${path}.${it}.bias`, byTurns(tensor, i)]);
      case "down_proj":
        return [[`${path}.down_proj.weight`, turned(tensor)]];
      case "down_proj_bias":
        return [[`${path}.down_proj.bias`, tensor]];
      case "gate_up_proj_blocks":
        return ["gate_proj", "up_proj"].map((it, i) => [`${path}.${it}.weight`, words(byTurns(tensor, i))]);
      case "gate_up_proj_scales":
        return ["gate_proj", "up_proj"].map((it, i) => [`${path}.${it}.scales`, byTurns(tensor, i)]);
      case "down_proj_blocks":
        return [[`${path}.down_proj.weight`, words(tensor)]];
      case "down_proj_scales":
        return [[`${path}.down_proj.scales`, tensor]];
      default:
        return [[name, tensor]];
    }
  });
  const { quantization_config, ...rest } = config;
  const quantization = { mode: "mxfp4", bits: 4, group_size: 32 }; // of the blocks' MXFP4
  return { config: quantization_config === undefined ? config : { ...rest, quantization }, tensors: new Map(entries) };
}

/** Blocks of 16 bytes in a row as the words of a row. */
const words = ({ shape: [experts = 0, rows = 0, blocks = 0], bytes }: TinyTensor): TinyTensor => {
  return { dtype: "U32", shape: [experts, rows, 4 * blocks], bytes };
};
