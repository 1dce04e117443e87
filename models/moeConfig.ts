/** What config.json says of a mixture of experts, in the spellings of its families. */
import type { Gated } from "../kernels/moe/gated.ts";
import {
  booleanField,
  type Fields,
  field,
  integerField,
  listField,
  optionalInteger,
  optionalNumber,
  refused,
} from "./configChecks.ts";
import { ModelFormatError } from "./errors.ts";
import type { Routing } from "./ops/routeTokens.ts";

/** A mixture of experts. */
export interface MoeConfig {
  readonly routing: Routing;
  /** Width of one expert. */
  readonly inner: number;
  /** The width of what every token goes through besides, and whether its sum is gated; null: nothing. */
  readonly shared: { readonly inner: number; readonly gated: boolean } | null;
  /** Whether a layer has experts; else it has a plain MLP. */
  readonly sparse: (layer: number) => boolean;
  /** The activation of experts, where it is not `hidden_act`. */
  readonly clamped?: Gated;
}

// Above these a number is a mistake or an attack: 512 experts and 32 a token are published.
const EXPERTS = { min: 1, max: 1024 };
const GROUPS = { min: 1, max: 64 };
const WIDTH = { min: 1, max: 2 ** 20 };
const LAYERS = { min: 0, max: 2 ** 10 };

/** One number under one of several names: the first is what messages call it where none is there. Throws ModelFormatError where two disagree. */
export function oneOf(fields: Fields, names: readonly string[], otherwise?: number): number {
  const found = names.filter((name) => field(fields, name) !== undefined);
  const [name = names[0] ?? ""] = found;
  if (found.length === 0 && otherwise !== undefined) return otherwise;
  const value = integerField(fields, name, EXPERTS);
  const odd = found.find((other) => integerField(fields, other, EXPERTS) !== value);
  if (odd !== undefined) throw refused(fields, odd, `${value} as ${name}`);
  return value;
}

/** Experts and how many a token goes to, checked against each other. */
export function readExperts(
  fields: Fields,
  names: { readonly experts: readonly string[]; readonly chosen?: readonly string[] },
  otherwise: { readonly experts?: number; readonly chosen?: number } = {},
): { readonly experts: number; readonly top_k: number } {
  const chosen = names.chosen ?? ["num_experts_per_tok"];
  const experts = oneOf(fields, names.experts, otherwise.experts);
  const top_k = oneOf(fields, chosen, otherwise.chosen);
  if (top_k > experts) throw refused(fields, chosen[0] ?? "", `at most as many as there are experts, ${experts}`);
  return { experts, top_k };
}

/** Groups that experts are chosen from; null where there is one. Throws ModelFormatError where they do not divide the experts. */
export function readGroups(
  fields: Fields,
  { experts, top_k }: { readonly experts: number; readonly top_k: number },
  otherwise: NonNullable<Routing["groups"]>,
): Routing["groups"] {
  const count = optionalInteger(fields, "n_group", GROUPS) ?? otherwise.count;
  const best = optionalInteger(fields, "topk_group", GROUPS) ?? otherwise.best;
  const { score } = otherwise;
  if (experts % count !== 0) throw refused(fields, "n_group", `a divisor of the number of experts, ${experts}`);
  if (score === "two best" && count > 1 && count === experts)
    throw refused(fields, "n_group", "groups of at least two experts");
  if (best > count) throw refused(fields, "topk_group", `at most n_group, ${count}`);
  if (best * (experts / count) < top_k) {
    const most = best * (experts / count);
    throw new ModelFormatError(
      "CONFIG",
      `${fields.file}: num_experts_per_tok is ${top_k}, expected at most ${most}, the experts of ${best} groups`,
    );
  }
  return count === 1 ? null : { count, best, score };
}

/** A width under a name. */
export const readWidth = (fields: Fields, name: string, otherwise?: number): number =>
  optionalInteger(fields, name, WIDTH) ?? otherwise ?? integerField(fields, name, WIDTH);

/** Qwen's and others' rule: each `decoder_sparse_step`-th layer has experts, but for those in `mlp_only_layers`. */
export function sparseSteps(fields: Fields): (layer: number) => boolean {
  const step = optionalInteger(fields, "decoder_sparse_step", { min: 1, max: LAYERS.max }) ?? 1;
  const plain = listField(fields, "mlp_only_layers") ?? [];
  const odd = plain.find((layer) => typeof layer !== "number" || !Number.isInteger(layer) || layer < 0);
  if (odd !== undefined) throw refused(fields, "mlp_only_layers", "a list of layers");
  return (layer) => !plain.includes(layer) && (layer + 1) % step === 0;
}

/** DeepSeek's and others' rule: the first `first_k_dense_replace` layers have none. */
function sparseFrom(fields: Fields, otherwise: number): (layer: number) => boolean {
  const first = optionalInteger(fields, "first_k_dense_replace", LAYERS) ?? otherwise;
  return (layer) => layer >= first;
}

/** DeepSeek's rule in full: from `first_k_dense_replace` on each `moe_layer_freq`-th layer has experts. */
export function sparseEvery(fields: Fields, otherwise: number): (layer: number) => boolean {
  const from = sparseFrom(fields, otherwise);
  const step = optionalInteger(fields, "moe_layer_freq", { min: 1, max: LAYERS.max }) ?? 1;
  return (layer) => from(layer) && layer % step === 0;
}

/** Mixtral's and others' mixture: experts of `intermediate_size` in every layer, none shared. */
export function everyLayerMoe(
  fields: Fields,
  { score, renormalize }: Pick<Routing, "score" | "renormalize">,
  otherwise: { readonly experts: number; readonly chosen: number; readonly inner?: number },
  chosen?: readonly string[],
): MoeConfig {
  const names = { experts: ["num_local_experts", "num_experts"], ...(chosen === undefined ? {} : { chosen }) };
  return {
    routing: { ...readExperts(fields, names, otherwise), score, renormalize, scaling: 1, groups: null },
    inner: readWidth(fields, "intermediate_size", otherwise.inner),
    shared: null,
    sparse: () => true,
  };
}

/** DeepSeek-V3's and GLM's mixture: sigmoid, groups by their two best, shared experts as one wider MLP. */
export function sigmoidMoe(
  fields: Fields,
  otherwise: {
    readonly inner: number;
    readonly experts: number;
    readonly dense: number;
    readonly scaling: number;
    readonly groups: number;
    readonly bestGroups: number;
  },
): MoeConfig {
  const names = { experts: ["n_routed_experts", "num_local_experts", "num_experts"] };
  const counts = readExperts(fields, names, { experts: otherwise.experts, chosen: 8 });
  const inner = readWidth(fields, "moe_intermediate_size", otherwise.inner);
  const shared = optionalInteger(fields, "n_shared_experts", { min: 0, max: 64 }) ?? 1;
  return {
    routing: {
      ...counts,
      score: "sigmoid",
      renormalize: (booleanField(fields, "norm_topk_prob") ?? true) ? { least: 1e-20 } : null,
      scaling: optionalNumber(fields, "routed_scaling_factor", { above: 0, max: 1e6 }) ?? otherwise.scaling,
      groups: readGroups(fields, counts, { score: "two best", count: otherwise.groups, best: otherwise.bestGroups }),
    },
    inner,
    shared: shared === 0 ? null : { inner: shared * inner, gated: false },
    sparse: sparseFrom(fields, otherwise.dense),
  };
}
