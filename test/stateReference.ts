/** Models whose layers keep states in f64, as the papers have them: all tokens of a prompt at once, no cache, no state. */
import { hasExperts, type Lfm2Shape, type Qwen3NextShape, type StateShape } from "./stateModels.ts";
import type { TinyModel } from "./tinyModel.ts";

type Vec = number[];

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const dot = (a: readonly number[], b: readonly number[]): number => sum(a.map((v, i) => v * (b[i] ?? Number.NaN)));
const plus = (a: readonly number[], b: readonly number[]): Vec => a.map((v, i) => v + (b[i] ?? Number.NaN));
const times = (a: readonly number[], b: readonly number[]): Vec => a.map((v, i) => v * (b[i] ?? Number.NaN));
const sigmoid = (v: number): number => 1 / (1 + Math.exp(-v));
const silu = (v: number): number => v * sigmoid(v);
const pick = <T>(list: readonly T[], i: number): T => {
  const found = list[i];
  if (found === undefined) throw new RangeError(`${i} of ${list.length}`);
  return found;
};
const cut = (values: Vec, size: number): Vec[] =>
  Array.from({ length: values.length / size }, (_, i) => values.slice(i * size, (i + 1) * size));
const softmax = (values: readonly number[]): Vec => {
  const most = Math.max(...values);
  const exponentials = values.map((v) => Math.exp(v - most));
  return exponentials.map((v) => v / sum(exponentials));
};

/** Tensors of a checkpoint in f64, and what is done with them. */
class Weights {
  readonly #tensors: TinyModel["tensors"];
  constructor({ tensors }: TinyModel) {
    this.#tensors = tensors;
  }
  values(name: string): Vec {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new RangeError(`no ${name}`);
    return [...new Float32Array(tensor.bytes.slice().buffer)];
  }
  linear(module: string, x: readonly Vec[]): Vec[] {
    const rows = cut(this.values(`${module}.weight`), pick(x, 0).length);
    const bias = this.#tensors.has(`${module}.bias`) ? this.values(`${module}.bias`) : rows.map(() => 0);
    return x.map((v) =>
      plus(
        rows.map((row) => dot(row, v)),
        bias,
      ),
    );
  }
  norm(name: string, x: readonly Vec[], eps: number, add: number): Vec[] {
    const weight = this.values(`${name}.weight`).map((v) => v + add);
    return x.map((v) => {
      const factor = 1 / Math.sqrt(dot(v, v) / v.length + eps);
      return times(
        v.map((value) => value * factor),
        weight,
      );
    });
  }
  mlp(x: readonly Vec[], gate: string, up: string, down: string): Vec[] {
    const ups = this.linear(up, x);
    const inner = this.linear(gate, x).map((v, t) => times(v.map(silu), pick(ups, t)));
    return this.linear(down, inner);
  }
}

/** Logits of each token. */
export function referenceLogits(model: TinyModel, shape: StateShape, tokens: readonly number[]): Vec[] {
  const weights = new Weights(model);
  const embedding = cut(weights.values("model.embed_tokens.weight"), shape.hidden);
  let x = tokens.map((token) => pick(embedding, token));
  const lfm2 = shape.family === "lfm2";
  const [eps, add] = lfm2 ? [1e-5, 0] : [1e-6, 1];
  const names = lfm2 ? ["operator_norm", "ffn_norm"] : ["input_layernorm", "post_attention_layernorm"];
  for (let layer = 0; layer < shape.attends.length; layer++) {
    const path = `model.layers.${layer}`;
    const [before, behind] = names.map((name) => `${path}.${name}`) as [string, string];
    const normed = weights.norm(before, x, eps, add);
    const mixed =
      shape.attends[layer] === true ? attend(weights, path, shape, normed) : recur(weights, path, shape, normed);
    x = x.map((v, t) => plus(v, pick(mixed, t)));
    const fed = feed(weights, path, shape, layer, weights.norm(behind, x, eps, add));
    x = x.map((v, t) => plus(v, pick(fed, t)));
  }
  const last = weights.norm(lfm2 ? "model.embedding_norm" : "model.norm", x, eps, add);
  return weights.linear(shape.tied ? "model.embed_tokens" : "lm_head", last);
}

const recur = (weights: Weights, path: string, shape: StateShape, x: readonly Vec[]): Vec[] =>
  shape.family === "lfm2" ? shortConv(weights, path, shape, x) : deltaNet(weights, path, shape, x);

/** Causal depthwise convolution, taps oldest first. */
function convolution(u: readonly Vec[], taps: readonly Vec[]): Vec[] {
  return u.map((_, t) =>
    taps.map((weights, channel) => sum(weights.map((w, j) => w * (u[t - weights.length + 1 + j]?.[channel] ?? 0)))),
  );
}

function shortConv(weights: Weights, path: string, { hidden, taps, bias }: Lfm2Shape, x: readonly Vec[]): Vec[] {
  const parts = weights.linear(`${path}.conv.in_proj`, x).map((v) => cut(v, hidden));
  const u = parts.map(([b = [], , v = []]) => times(b, v));
  const shift = bias ? weights.values(`${path}.conv.conv.bias`) : Array<number>(hidden).fill(0);
  const convolved = convolution(u, cut(weights.values(`${path}.conv.conv.weight`), taps));
  return weights.linear(
    `${path}.conv.out_proj`,
    convolved.map((v, t) => times(plus(v, shift), pick(pick(parts, t), 1))),
  );
}

function deltaNet(weights: Weights, path: string, shape: Qwen3NextShape, x: readonly Vec[]): Vec[] {
  const { keyHeads, group, keyDim, valueDim, taps } = shape;
  const module = `${path}.linear_attn`;
  const wide = group * valueDim;
  const byKeyHead = weights.linear(`${module}.in_proj_qkvz`, x).map((v) => cut(v, 2 * keyDim + 2 * wide));
  const part = (from: number, size: number) =>
    byKeyHead.map((heads) => heads.flatMap((v) => v.slice(from, from + size)));
  const [q, k, v, z] = [part(0, keyDim), part(keyDim, keyDim), part(2 * keyDim, wide), part(2 * keyDim + wide, wide)];
  const ba = weights.linear(`${module}.in_proj_ba`, x).map((row) => cut(row, 2 * group));
  const [b, a] = [0, group].map((from) => ba.map((heads) => heads.flatMap((row) => row.slice(from, from + group)))) as [
    Vec[],
    Vec[],
  ];
  const all = q.map((row, t) => [...row, ...pick(k, t), ...pick(v, t)]);
  const kernel = cut(weights.values(`${module}.conv1d.weight`), taps);
  const convolved = convolution(all, kernel).map((row) => row.map(silu));
  const [aLog, dtBias] = [weights.values(`${module}.A_log`), weights.values(`${module}.dt_bias`)];
  const keys = keyHeads * keyDim;
  const unit = (row: Vec) => row.map((value) => value / Math.sqrt(dot(row, row) + 1e-6));
  const heads = Array.from({ length: keyHeads * group }, (_, head) => {
    let state = Array.from({ length: keyDim }, () => Array<number>(valueDim).fill(0));
    return convolved.map((row, t) => {
      const at = Math.floor(head / group) * keyDim;
      const query = unit(row.slice(at, at + keyDim)).map((value) => value / Math.sqrt(keyDim));
      const key = unit(row.slice(keys + at, keys + at + keyDim));
      const value = row.slice(2 * keys + head * valueDim, 2 * keys + (head + 1) * valueDim);
      const beta = sigmoid(pick(pick(b, t), head));
      const time = pick(pick(a, t), head) + pick(dtBias, head);
      const decay = Math.exp(-Math.exp(pick(aLog, head)) * Math.log1p(Math.exp(time)));
      state = state.map((line) => line.map((s) => s * decay));
      const held = value.map((_, c) => sum(state.map((line, i) => pick(line, c) * pick(key, i))));
      state = state.map((line, i) => line.map((s, c) => s + pick(key, i) * beta * (pick(value, c) - pick(held, c))));
      return value.map((_, c) => sum(state.map((line, i) => pick(line, c) * pick(query, i))));
    });
  });
  const gated = x.map((_, t) =>
    heads.flatMap((rows, head) => {
      const [o] = weights.norm(`${module}.norm`, [pick(rows, t)], 1e-6, 0);
      return times(
        o ?? [],
        pick(z, t)
          .slice(head * valueDim, (head + 1) * valueDim)
          .map(silu),
      );
    }),
  );
  return weights.linear(`${module}.out_proj`, gated);
}

function rotated(x: Vec, position: number, rotary: number): Vec {
  const half = rotary / 2;
  return x.map((v, d) => {
    if (d >= rotary) return v;
    const angle = position * 10_000 ** (-(2 * (d % half)) / rotary);
    const other = d < half ? -pick(x, d + half) : pick(x, d - half);
    return v * Math.cos(angle) + other * Math.sin(angle);
  });
}

function attend(weights: Weights, path: string, shape: StateShape, x: readonly Vec[]): Vec[] {
  const { heads, kvHeads, headDim } = shape;
  const lfm2 = shape.family === "lfm2";
  const [norms, out] = lfm2 ? [["q_layernorm", "k_layernorm"], "out_proj"] : [["q_norm", "k_norm"], "o_proj"];
  const module = `${path}.self_attn`;
  const [eps, add, rotary] = lfm2 ? [1e-5, 0, headDim] : [1e-6, 1, headDim / 2];
  const queries = weights.linear(`${module}.q_proj`, x).map((v) => cut(v, lfm2 ? headDim : 2 * headDim));
  const turn = (rows: Vec[], norm: string | undefined, t: number) =>
    weights.norm(`${module}.${norm}`, rows, eps, add).map((row) => rotated(row, t, rotary));
  const q = queries.map((rows, t) =>
    turn(
      rows.map((row) => row.slice(0, headDim)),
      norms[0],
      t,
    ),
  );
  const k = weights.linear(`${module}.k_proj`, x).map((v, t) => turn(cut(v, headDim), norms[1], t));
  const v = weights.linear(`${module}.v_proj`, x).map((row) => cut(row, headDim));
  const rows = x.map((_, t) =>
    Array.from({ length: heads }, (_, h) => {
      const kv = Math.floor(h / (heads / kvHeads));
      const seen = k.slice(0, t + 1);
      const p = softmax(seen.map((key) => dot(pick(pick(q, t), h), pick(key, kv)) / Math.sqrt(headDim)));
      const o = Array.from({ length: headDim }, (_, d) => sum(p.map((w, j) => w * pick(pick(pick(v, j), kv), d))));
      return lfm2 ? o : times(o, pick(pick(queries, t), h).slice(headDim).map(sigmoid));
    }).flat(),
  );
  return weights.linear(`${module}.${out}`, rows);
}

function feed(weights: Weights, path: string, shape: StateShape, layer: number, x: readonly Vec[]): Vec[] {
  if (shape.family === "lfm2") {
    const module = `${path}.feed_forward`;
    return weights.mlp(x, `${module}.w1`, `${module}.w3`, `${module}.w2`);
  }
  const mlp = (module: string, rows: readonly Vec[]) =>
    weights.mlp(rows, `${module}.gate_proj`, `${module}.up_proj`, `${module}.down_proj`);
  if (!hasExperts(shape, layer)) return mlp(`${path}.mlp`, x);
  const shared = mlp(`${path}.mlp.shared_expert`, x);
  const gates = weights.linear(`${path}.mlp.shared_expert_gate`, x);
  return weights.linear(`${path}.mlp.gate`, x).map((logits, t) => {
    const scores = softmax(logits);
    const best = scores.map((score, e) => ({ score, e })).sort((l, r) => r.score - l.score);
    const chosen = best.slice(0, shape.chosen);
    const total = shape.renormalize ? sum(chosen.map(({ score }) => score)) : 1;
    const own = pick(shared, t).map((value) => value * sigmoid(pick(pick(gates, t), 0)));
    return chosen.reduce((into, { score, e }) => {
      const [out = []] = mlp(`${path}.mlp.experts.${e}`, [pick(x, t)]);
      return plus(
        into,
        out.map((value) => (value * score) / total),
      );
    }, own);
  });
}
