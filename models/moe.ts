/** Mixture of experts as a block: router, experts in any form that checkpoints have them, shared experts. */
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import { MAX_EXPERTS, MAX_SLOTS } from "../kernels/moe/route.ts";
import type { ModelConfig } from "./config.ts";
import { UnsupportedModelError } from "./errors.ts";
import type { MoeConfig } from "./moeConfig.ts";
import { type RouterWeights, routeTokens } from "./ops/routeTokens.ts";
import { runExperts } from "./ops/runExperts.ts";
import type { Projection } from "./projection.ts";
import type { Norm, Residual, Step } from "./step.ts";
import type { Vector } from "./vectors.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** A feed-forward that adds to the residual stream by itself. */
export interface Mixture {
  add(step: Step, x: Residual, next: Norm | null): Residual;
}

/** What families' mixtures differ in; left out: Qwen's. */
export interface MixtureOptions {
  /** Module of the router, where it is not `gate`. */
  readonly router?: string;
  readonly routerBias?: Vector;
  readonly correction?: Vector;
  /** Modules of an expert's gate, up and down. */
  readonly names?: readonly [gate: string, up: string, down: string];
  /** Projections of an expert, where they are none of the usual forms. */
  readonly expert?: (index: number) => ExpertModules;
  /** Whether experts have biases. */
  readonly bias?: boolean;
  /** Module of the shared experts, where there are some. */
  readonly shared?: string;
  /** Whether these have biases. */
  readonly sharedBias?: boolean;
}

/** The three projections of an expert. */
export interface ExpertModules {
  readonly gate: Projection;
  readonly up: Projection;
  readonly down: Projection;
}

/** A mixture of experts. 3 dispatches for up to 8 rows, 5 for more or where a stack lies in several shards. */
export function mixture(
  weights: WeightPlan,
  path: string,
  config: ModelConfig,
  moe: MoeConfig,
  options: MixtureOptions = {},
): Mixture {
  const { hidden_size } = config;
  const { routing, inner } = moe;
  const { experts } = routing;
  const shared = sharedParts(moe);
  const own = withBias(options.expert ?? expertForm(weights, path, config, moe, options), options.bias === true);
  const part = (index: number) => sharedPart(`${path}.${options.shared ?? ""}`, config, moe, index, options.sharedBias);
  const expert = (e: number) => (e < experts ? own(e) : part(e - experts));
  const pair = (e: number) => {
    const { gate, up } = expert(e);
    return [gate, up] as const;
  };
  const down = (e: number) => expert(e).down;
  const count = experts + shared;
  refuseTooMany(path, count, routing.top_k + shared);
  const bias = options.bias === true || (options.sharedBias === true && shared > 0);
  const stacks = {
    count,
    inner,
    gated: moe.clamped ?? { activation: config.hidden_act },
    gateUp: weights.experts(count, pair, inner, hidden_size),
    gateUpBias: weights.expertsBias(count, pair, inner, bias),
    down: weights.experts(count, down, hidden_size, inner),
    downBias: weights.expertsBias(count, down, hidden_size, bias),
  };
  const router = routerWeights(weights, path, config, moe, options);
  return {
    add: (step, x, next) => runExperts(step, stacks, routeTokens(step, routing, router, x), x, next),
  };
}

function refuseTooMany(path: string, experts: number, slots: number): void {
  // A gate of the shared experts has a block of the router's rows of its own.
  const most = MAX_EXPERTS - BLOCK_ROWS;
  if (experts <= most && slots <= MAX_SLOTS) return;
  throw new UnsupportedModelError(
    `${path}: ${experts} experts, ${slots} a token, shared ones counted by the others' width; supported: ${most}, ${MAX_SLOTS} a token`,
  );
}

/** The shared experts are one wider MLP: as many experts of the others' width, the last one with zeros behind. */
const sharedParts = ({ shared, inner }: MoeConfig): number => (shared === null ? 0 : Math.ceil(shared.inner / inner));

function sharedPart(
  path: string,
  { hidden_size }: ModelConfig,
  { inner, shared }: MoeConfig,
  index: number,
  bias = false,
): ExpertModules {
  const of = shared?.inner ?? 0;
  const first = index * inner;
  const rows = Math.min(inner, of - first);
  const slice = { first, of };
  const none = bias ? {} : { bias: null };
  return {
    gate: { module: `${path}.gate_proj`, rows, slice, ...none },
    up: { module: `${path}.up_proj`, rows, slice, ...none },
    // The bias of a sum that is cut in parts is added with the first.
    down: {
      module: `${path}.down_proj`,
      rows: hidden_size,
      columns: { first, count: rows, of },
      ...(index === 0 ? none : { bias: null }),
    },
  };
}

/** Experts whose biases are those of their modules, or none. */
function withBias(own: (index: number) => ExpertModules, bias: boolean): (index: number) => ExpertModules {
  if (bias) return own;
  return (index) => {
    const { gate, up, down } = own(index);
    return { gate: { ...gate, bias: null }, up: { ...up, bias: null }, down: { ...down, bias: null } };
  };
}

function routerWeights(
  weights: WeightPlan,
  path: string,
  { hidden_size }: ModelConfig,
  moe: MoeConfig,
  options: MixtureOptions,
): RouterWeights {
  const { experts } = moe.routing;
  const gated = moe.shared?.gated === true;
  const projections: Projection[] = [{ module: `${path}.${options.router ?? "gate"}`, rows: experts }];
  if (gated) projections.push({ module: `${path}.shared_expert_gate`, rows: 1 });
  const [matrix, apart] = weights.stacked(projections, hidden_size, { together: true });
  if (matrix === undefined || apart !== undefined) throw storedApart(projections);
  const { routerBias: bias, correction } = options;
  return { matrix, bias, correction, shared: sharedParts(moe), gated };
}

function storedApart(projections: readonly Projection[]): UnsupportedModelError {
  const [router = "", gate = ""] = projections.map(({ module }) => module);
  return new UnsupportedModelError(`${gate}: stored otherwise than ${router}, expected alike; quantize both or none`);
}

/** The form that the checkpoint has its experts in: MLX's stacks, fused stacks, or a module each. */
function expertForm(
  weights: WeightPlan,
  path: string,
  { hidden_size }: ModelConfig,
  { routing: { experts: of }, inner }: MoeConfig,
  { names = ["gate_proj", "up_proj", "down_proj"] }: MixtureOptions,
): (index: number) => ExpertModules {
  const stack = [`${path}.switch_mlp`, `${path}.experts`].find((name) =>
    ["gate_proj", "up_proj", "down_proj"].some((part) => weights.hasUnder(`${name}.${part}.`)),
  );
  if (stack !== undefined) {
    const one = (name: string, rows: number) => (index: number) => ({
      module: `${stack}.${name}`,
      rows,
      expert: { index, of },
    });
    const [gate, up, down] = [one("gate_proj", inner), one("up_proj", inner), one("down_proj", hidden_size)];
    return (index) => ({ gate: gate(index), up: up(index), down: down(index) });
  }
  const fused = `${path}.experts.gate_up_proj`;
  if (weights.hasUnder(fused) || weights.hasUnder(`${path}.experts.down_proj`)) {
    const half = (index: number, first: number) => ({
      module: fused,
      weight: fused,
      rows: inner,
      slice: { first, of: 2 * inner },
      expert: { index, of },
    });
    const down = `${path}.experts.down_proj`;
    return (index) => ({
      gate: half(index, 0),
      up: half(index, inner),
      down: { module: down, weight: down, rows: hidden_size, expert: { index, of } },
    });
  }
  const [gate, up, down] = names;
  return (index) => ({
    gate: { module: `${path}.experts.${index}.${gate}`, rows: inner },
    up: { module: `${path}.experts.${index}.${up}`, rows: inner },
    down: { module: `${path}.experts.${index}.${down}`, rows: hidden_size },
  });
}
