/** Checkpoints as mlx-lm 0.32 converts them, where it changes more than names of experts. */
import { changed, items, numbersOf, renamed, type Saying, stack, turned } from "./saying.ts";
import { floats, type TinyModel, type TinyTensor } from "./tinyModel.ts";

/** What the conversion does to a family's own tensors. */
const CONVERSIONS: Readonly<Record<string, (model: TinyModel) => TinyModel>> = {
  gpt2(model) {
    const linear = /\.(c_attn|c_proj|c_fc)\.weight$/;
    const named = renamed(model, (name) => (/\.attn\.bias$/.test(name) ? undefined : `model.${name}`));
    return changed(named, (tensor, name) => (linear.test(name) ? turned(tensor) : tensor));
  },
  gpt_neox: (model) =>
    renamed(model, (name) => {
      if (/\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/.test(name)) return undefined;
      return `model.${name}`.replace(".gpt_neox.layers.", ".h.").replace(".gpt_neox.", ".");
    }),
  lfm2: (model) => changed(model, (tensor, name) => (name.endsWith("conv.weight") ? turned(tensor) : tensor)),
  qwen3_next(model) {
    const norms = /(input_layernorm|post_attention_layernorm|model\.norm|q_norm|k_norm)\.weight$/;
    return changed(model, (tensor, name) => {
      if (name.endsWith("conv1d.weight")) return turned(tensor);
      return norms.test(name)
        ? floats(
            numbersOf(tensor).map((weight) => weight + 1),
            "F32",
            tensor.shape,
          )
        : tensor;
    });
  },
  deepseek_v3: splitHeads,
};

/** `kv_b_proj` by head: keys turned to (latent, nope), values as they are. */
function splitHeads({ config, tensors }: TinyModel): TinyModel {
  const heads = Number(config.num_attention_heads);
  const nope = Number(config.qk_nope_head_dim);
  const entries = [...tensors].flatMap(([name, tensor]): (readonly [string, TinyTensor])[] => {
    const [, path] = /^(.+)\.kv_b_proj\.weight$/.exec(name) ?? [];
    if (path === undefined) return [[name, tensor]];
    const rows = items(tensor);
    const each = rows.length / heads;
    const byHead = Array.from({ length: heads }, (_, h) => rows.slice(h * each, (h + 1) * each));
    return [
      [`${path}.embed_q.weight`, stack(byHead.map((own) => turned(stack(own.slice(0, nope)))))],
      [`${path}.unembed_out.weight`, stack(byHead.map((own) => stack(own.slice(nope))))],
    ];
  });
  return { config, tensors: new Map(entries) };
}

/** A family's own tensors as MLX has them. */
export const mlxConversion: Saying = {
  name: "its own tensors as MLX converts them",
  say: (model) => CONVERSIONS[String(model.config.model_type)]?.(model) ?? null,
};
