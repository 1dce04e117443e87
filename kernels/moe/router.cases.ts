/** Cases of the router: every scoring, groups, corrections, ties, shared experts, against f64. */
import { activation, product, randomMatrix } from "../caseData.ts";
import { BLOCK_ROWS, type LayoutName, type ScaleType } from "../formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "../formats/layouts.ts";
import { NONE } from "../kernel.ts";
import { type Case, Random } from "../testbed.ts";
import { routeShape } from "./route.ts";
import { GROUP_SCORES, type GroupScore, gateRow, partParams, router, SCORES, type Score } from "./router.ts";

/** What varies between the cases. */
export interface RouterShape {
  readonly layout: LayoutName;
  readonly group: number;
  readonly scaleType: ScaleType;
  readonly experts: number;
  readonly top_k: number;
  /** Shared experts, and whether the matrix has a row that gates them. */
  readonly shared: number;
  readonly gated: boolean;
  readonly score: Score;
  readonly renormalize: boolean;
  readonly scaling: number;
  readonly bias: boolean;
  readonly correction: boolean;
  readonly n_group: number;
  readonly topk_group: number;
  readonly group_score: GroupScore;
  /** Experts that have the weights of the one before them: ties go to the lowest id. */
  readonly twins: boolean;
  readonly cols: number;
  readonly rows: number;
  readonly spread: number;
  readonly seed: number;
}

const LIMIT = 1e-9; // exp of drivers is good to about 1e-5, and f32 logits to 1e-6
const EPS = 1e-5;

const sigmoid = (v: number) => 1 / (1 + Math.exp(-v));
const at = (list: ArrayLike<number>, index: number) => list[index] ?? Number.NaN;

/** Ids by falling value, the lowest first among equal ones. */
const byValue = (ids: readonly number[], value: (id: number) => number) =>
  ids.toSorted((a, b) => value(b) - value(a) || a - b);

/** One row's experts and weights in f64. */
export function routeOf(logits: ArrayLike<number>, correction: ArrayLike<number>, shape: RouterShape) {
  const ids = Array.from({ length: shape.experts }, (_, e) => e);
  const most = Math.max(...ids.map((e) => at(logits, e)));
  const total = ids.reduce((sum, e) => sum + Math.exp(at(logits, e) - most), 0);
  const score = (e: number) => {
    const logit = at(logits, e);
    if (shape.score === "softmax") return Math.exp(logit - most) / total;
    return shape.score === "sigmoid" ? sigmoid(logit) : logit;
  };
  const choice = (e: number) => score(e) + (shape.correction ? at(correction, e) : 0);
  const size = shape.experts / shape.n_group;
  const groupScore = (group: number) => {
    const [first = Number.NaN, second = 0] = byValue(ids.slice(group * size, (group + 1) * size), choice).map(choice);
    return shape.group_score === "best" ? first : first + second;
  };
  const groups = byValue(
    Array.from({ length: shape.n_group }, (_, g) => g),
    groupScore,
  ).slice(0, shape.topk_group);
  const open = ids.filter((e) => groups.includes(Math.floor(e / size)));
  const chosen = byValue(byValue(open, choice).slice(0, shape.top_k), score);
  const raw = chosen.map((e) => (shape.score === "logits" ? Math.exp(score(e) - score(chosen[0] ?? 0)) : score(e)));
  const sum = raw.reduce((a, b) => a + b, 0);
  const share = shape.renormalize || shape.score === "logits";
  return { chosen, weights: raw.map((w) => (shape.scaling * w) / (share ? sum : 1)) };
}

/** Params of a router that a shape says. */
function routerParams(shape: RouterShape, aux: { readonly bias: number; readonly correction: number }) {
  const { experts, top_k, shared, gated, n_group, topk_group, rows } = shape;
  const route = routeShape(rows, top_k + shared);
  return {
    experts,
    top_k,
    slots: route.slots,
    gate_row: gated && shared > 0 ? gateRow(experts) : NONE,
    score: SCORES.indexOf(shape.score),
    renormalize: shape.renormalize ? 1 : 0,
    least_sum: 1e-20,
    scaling: shape.scaling,
    bias: shape.bias ? aux.bias : NONE,
    correction: shape.correction ? aux.correction : NONE,
    n_group,
    topk_group,
    group_score: GROUP_SCORES.indexOf(shape.group_score),
    weights: route.weights,
    inverses: route.inverses,
  };
}

function routerCase(shape: RouterShape): Case {
  return {
    kernel: "router",
    title: title(shape),
    async run(bed) {
      const random = new Random(shape.seed);
      const { layout, rows, cols, experts, top_k, shared } = shape;
      const stored = shape.gated && shared > 0 ? gateRow(experts) + 1 : experts;
      const matrix = randomMatrix(random, layouts[layout], stored, cols, shape.group, shape.scaleType);
      if (shape.twins) twin(matrix.packed.words, matrix.packed.scales, matrix.values, cols);
      const x = random.floats(rows * cols, shape.spread);
      const residual = random.floats(rows * cols, shape.spread);
      const bias = random.floats(experts);
      const correction = random.floats(experts, 0.2);
      if (shape.twins) for (const list of [bias, correction]) list.copyWithin(1, 0, 1);
      const act = activation(rows, cols, x, residual);
      const route = routeShape(rows, top_k + shared);
      const out = bed.buffer(new Uint32Array(route.words).fill(NONE));
      const words = bed.buffer(matrix.packed.words);
      const buffers = {
        words,
        scales: matrix.packed.scales.length > 0 ? bed.buffer(matrix.packed.scales) : words,
        x: bed.buffer(act.data),
        aux: bed.buffer(new Float32Array([...bias, ...correction])),
        route: out,
      };
      const params = {
        ...partParams({ ...matrix.shape, layout }, stored),
        ...routerParams(shape, { bias: 0, correction: experts }),
        x_squares: act.shape.squares,
        hidden_size: cols,
        eps: EPS,
        x_stride: act.shape.stride / 4,
        x_runs: act.shape.runs,
      };
      await bed.submit((recorder) => router(layout).launch(recorder, { buffers, params, grid: [rows, 1, 1] }));
      const got = await bed.u32(out);
      const floats = new Float32Array(got.buffer);
      const inverses = Float64Array.from({ length: rows }, (_, row) => {
        const squares = residual.subarray(row * cols, (row + 1) * cols).reduce((sum, v) => sum + v * v, 0);
        return 1 / Math.sqrt(squares / cols + EPS);
      });
      const products = product(matrix.values, x, rows, cols, stored);
      const wanted = Array.from(inverses, (inverse, row) => {
        const normed = products.subarray(row * stored, (row + 1) * stored).map((v) => v * inverse);
        return chosenOf(shape, normed, bias, correction);
      });
      return [
        { name: "experts", got: got.subarray(0, route.items), want: wanted.flatMap(({ ids }) => ids), limit: 0 },
        {
          name: "weights",
          got: floats.subarray(route.weights, route.inverses),
          want: wanted.flatMap(({ weights }) => weights),
          limit: LIMIT,
        },
        { name: "inverse_rms", got: floats.subarray(route.inverses), want: inverses, limit: 1e-10 },
      ];
    },
  };
}

/** A row's experts, shared ones last, and their weights. */
function chosenOf(shape: RouterShape, normed: Float64Array, bias: Float32Array, correction: Float32Array) {
  const { experts, shared, gated } = shape;
  const logits = normed.map((v, e) => v + (shape.bias && e < experts ? at(bias, e) : 0));
  const { chosen, weights } = routeOf(logits, correction, shape);
  const open = gated ? sigmoid(at(logits, logits.length - 1)) : 1;
  const extra = Array.from({ length: shared }, (_, s) => experts + s);
  return { ids: [...chosen, ...extra], weights: [...weights, ...extra.map(() => open)] };
}

/** Makes the second row of each block equal to the first, as stored and in f64. */
function twin(words: Uint32Array, scales: Uint32Array, values: Float64Array, cols: number): void {
  for (const list of [words, scales]) {
    for (let i = 0; i + 1 < list.length; i += BLOCK_ROWS) list[i + 1] = list[i] ?? 0;
  }
  for (let row = 0; (row + 2) * cols <= values.length; row += BLOCK_ROWS) {
    values.copyWithin((row + 1) * cols, row * cols, (row + 1) * cols);
  }
}

function title(s: RouterShape): string {
  const flags = [
    s.score,
    s.renormalize && "renormalized",
    s.bias && "bias",
    s.correction && "correction",
    s.n_group > 1 && `groups=${s.topk_group}/${s.n_group} by ${s.group_score}`,
    s.shared > 0 && `shared=${s.shared}${s.gated ? " gated" : ""}`,
    s.twins && "twins",
    s.spread > 1 && `spread=${s.spread}`,
  ].filter(Boolean);
  return `router ${s.layout} E=${s.experts} k=${s.top_k} K=${s.cols} rows=${s.rows} ${flags.join(",")} seed=${s.seed}`;
}

const EXPERTS = [1, 3, 5, 7, 8, 33, 60, 64, 128, 130, 512] as const;
const GROUPED = [
  { experts: 8, n_group: 4, topk_group: 2 },
  { experts: 15, n_group: 3, topk_group: 1 },
  { experts: 256, n_group: 8, topk_group: 4 },
] as const;

function randomShape(layout: LayoutName, seed: number): RouterShape {
  const random = new Random(seed * 5003);
  const group = random.pick([32, 64]);
  const picked =
    random.next() < 0.3 ? random.pick(GROUPED) : { experts: random.pick(EXPERTS), n_group: 1, topk_group: 1 };
  const most = (picked.experts / picked.n_group) * picked.topk_group;
  const score = random.pick(SCORES);
  return {
    layout,
    group,
    scaleType: random.pick(["f16", "bf16", "f32"] as const),
    ...picked,
    top_k: 1 + random.below(Math.min(most, 10)),
    shared: random.pick([0, 0, 1, 3]),
    gated: random.next() < 0.5,
    score,
    renormalize: random.next() < 0.5,
    scaling: random.pick([1, 2.5]),
    bias: random.next() < 0.3,
    correction: score !== "logits" && random.next() < 0.4,
    group_score: picked.experts === picked.n_group ? "best" : random.pick(GROUP_SCORES),
    twins: picked.experts > 1 && random.next() < 0.25,
    cols: layouts[layout].scaling === "none" ? 1 + random.below(300) : group * (1 + random.below(5)),
    rows: random.pick([1, 2, 5, 32]),
    spread: random.next() < 0.15 ? 1e5 : 1,
    seed,
  };
}

/** `count` random shapes, the layouts by turns. */
export function routerCases(count: number, firstSeed: number, names: readonly LayoutName[] = LAYOUT_NAMES): Case[] {
  return Array.from({ length: count }, (_, i) =>
    routerCase(randomShape(names[i % names.length] ?? "f32", firstSeed + i)),
  );
}

/** Routers of published models: OLMoE, Qwen3-30B-A3B, gpt-oss-20b, DeepSeek-V3, Qwen1.5-MoE. */
export function realRouterCases(firstSeed: number): Case[] {
  const base = {
    layout: "affine8",
    group: 64,
    scaleType: "f16",
    shared: 0,
    gated: false,
    renormalize: true,
    scaling: 1,
    bias: false,
    correction: false,
    n_group: 1,
    topk_group: 1,
    group_score: "two best",
    twins: false,
    rows: 2,
    spread: 1,
  } as const;
  const shapes = [
    { ...base, experts: 64, top_k: 8, score: "softmax", renormalize: false, cols: 2048 },
    { ...base, experts: 128, top_k: 8, score: "softmax", cols: 2048 },
    { ...base, layout: "bf16", experts: 32, top_k: 4, score: "logits", bias: true, cols: 2880 },
    {
      ...base,
      layout: "bf16",
      experts: 256,
      top_k: 8,
      shared: 1,
      score: "sigmoid",
      correction: true,
      n_group: 8,
      topk_group: 4,
      scaling: 2.5,
      cols: 7168,
    },
    { ...base, experts: 60, top_k: 4, shared: 4, gated: true, score: "softmax", renormalize: false, cols: 2048 },
  ] as const satisfies readonly Omit<RouterShape, "seed">[];
  return shapes.map((shape, i) => routerCase({ ...shape, seed: firstSeed + i }));
}
