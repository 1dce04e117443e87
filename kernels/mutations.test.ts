/** Breaks kernels line by line and expects the cases to notice: a case that cannot fail proves nothing. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Gpu, openGpu } from "../device/gpu.ts";
import { allCases } from "./cases.ts";
import { everyKernel } from "./kernelList.ts";
import { Testbed } from "./testbed.ts";

/** The kernel, what is replaced by what, and the cases that are asked: those with this in their title, at most 60. */
const MUTATIONS = [
  ["embed f16", "|| id >= params.end_row", "", "embed f16"],
  ["embed f16", "id - params.first_row", "id", "embed f16"],
  ["embed f32", "params.multiplier * vec4f", "vec4f", "embed f32"],
  ["embed f16", "v += vec4f(y[at]", "v = vec4f(y[at]", " added"],
  ["norm", "1u - params.centred", "1u", "norm layer"],
  ["norm", "columns < vec4u(params.cols)", "vec4<bool>(true)", "norm layer"],
  ["norm", "v = y[i] + u", "v = u", "norm rms behind"],
  ["norm", "params.scale * fma", "fma", "scale=0.3"],
  ["activate", "2.0 - tail", "1.0 - tail", "activate gelu"],
  ["activate", "run + lane < params.runs", "run + lane <= params.runs", "activate"],
  ["softcap", "select(capped, v,", "select(capped, capped,", "softcap cap"],
  ["rope_kv f32 head_dim<=64", "w + aux[head.biases + d]", "w", "norm=layer-with-biases"],
  ["pick_rows", "x[params.x_sums + row", "x[params.x_sums + wg.x", "pick_rows"],
  ["pick_rows", "i < params.runs", "i <= params.runs", "pick_rows"], // one past the end: only guard bytes show it
  ["sample", "select(bits, 0u, bits == 0x80000000u)", "bits", " zeros "],
  ["sample", "place = max(place, ~i)", "place = ~i", "temperature=0 "],
  ["sample", "(bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u", "false", "broken"],
  ["sample", "want = f32(top_k)", "want = f32(top_k) + 1.0", "top_k=5"],
  ["sample", "total >= vec3f(want)", "total >= vec3f(want * 1.01)", "top_p=0.9 "],
  ["sample", "abs(kept.mean - log_weight(v, kept))", "abs(log_weight(v, kept))", "typical_p=0."],
  ["sample", "sum.x += add * log_weight(v, kept)", "sum.x += add", "typical_p=0."],
  ["sample", "best = best_score(base, lane);", "", "scores="],
  ["sample", "value_of(best.x) <=", "value_of(best.x) * 0.1 <=", "scores=masked"],
  ["adjust", "select(score * r, score / r, score > 0.0)", "score / r", "repetition"],
  ["adjust", "atomicAdd(&marks[id], 1u)", "atomicOr(&marks[id], 1u)", "counts"],
  ["adjust", "if (i < prompt) { atomicOr", "if (i <= prompt) { atomicOr", "counts"],
  ["adjust", "i < position; i += WG", "i <= position; i += WG", "counts"],
  ["adjust", "position < rule(block", "position <= rule(block", "stops"],
  ["adjust", "ban(lists[word + before], first)", "ban(lists[word], first)", "words"],
  ["adjust", "same && k < before", "same && k + 1u < before", "words"],
  ["adjust", ">> (id & 31u)", ">> (31u - (id & 31u))", "allowed"],
  ["adjust", "if (id < CHUNK) { biases[id]", "if (id + 900u < CHUNK) { biases[id]", "rows=3 bias seed"],
  ["advance", "batch[stops + i] == id", "batch[stops] == id", "advance"],
  ["advance", "id >= 4294967294u", "id > 4294967294u", "advance"],
  ["advance", "|| page >=", "|| page >", "advance"],
  [
    "advance",
    "let page = batch[row + 5u] + position / 16u",
    "let page = batch[row + 5u] + (position - 1u) / 16u",
    "advance",
  ],
  ["advance", "if (batch[row + 2u] == NONE) { return; }", "", "advance"],
  ["sample", "min(log(min_p), 0.0) / scale", "log(min_p)", "min_p=0.05"],
  ["sample", "1.0 / clamp(temperature, 1e-30, 1e30)", "1.0", "temperature=10000"],
  ["sample", "key_of(v) >= kept.key", "key_of(v) > kept.key", "top_k=1 "],
  ["sample", "unit_interval(random.x)", "unit_interval(random.y)", "sample vocab=1000 normal"],
  ["sample", "wanted - before < sum", "wanted - before <= sum * 1.001", "first-and-last"],
  [
    "verify",
    "weight(score(side.base, i), side.kept) / side.mass",
    "weight(score(side.base, i), side.kept)",
    "verify vocab=31 ",
  ],
  ["verify", "i >= params.draft_vocab", "false", "draft_vocab"],
  ["verify", "at * params.draft_stride", "s * params.draft_stride", "verify vocab=31 "],
  ["verify", "logits[s * params.stride + id]", "scores[s * params.stride + id]", "verify vocab=31 "],
  ["log_probs", "k == last_key && i > last_id", "false", "log_probs"],
  ["log_probs", "(value_of(last_key) - best) - row.log_sum", "value_of(last_key) - (best + row.log_sum)", "great"],
  ["norm_matmul f32 M=1", "params.delta_stride + params.out_offset", "params.delta_stride", "norm_matmul f32"],
  ["matmul_residual f16 M=2", "acc1 += d1", "acc1 = d1 + acc1 * 1.000001", "same_bits matmul_residual f16"],
  ["matmul_residual f16 M=1", "params.first_block + wg.x", "wg.x", "matmul_residual f16"],
  ["norm_gate_up f16 M=8", "(first + lane) * params.out_runs", "lane * params.out_runs", "norm_gate_up f16"],
  [
    "attention_fused f16 head_dim<=64",
    "vec2f(-65504.0), vec2f(65504.0)",
    "vec2f(-1e9), vec2f(1e9)",
    "attention_fused f16",
  ],
  ["attention_fused f32 head_dim<=64", "params.window < length", "params.window + 1u < length", "attention_fused f32"],
  [
    "attention_fused f16 head_dim<=64",
    "split == (length - 1u) / SPLIT",
    "split == length / SPLIT",
    "attention_fused f16",
  ],
  [
    "attention_paged f32 head_dim<=64",
    "fma(part0_0_0, keep0, o0_0 * take0)",
    "part0_0_0 + o0_0 * take0",
    "attention_paged f32",
  ],
  ["attention_paged f16 head_dim<=64", "vec4u(params.window) < lengths0", "vec4<bool>(false)", "attention_paged f16"],
  [
    "attention_fused int8 head_dim<=64",
    "params.scale * bitcast<f32>(scale_bits0_0)",
    "params.scale",
    "attention_fused int8",
  ],
  [
    "attention_paged int8 head_dim<=64",
    "v_scale_at(page_of(row, j), unit.kv_head, j % PAGE)",
    "v_scale_at(page_of(row, j), 0u, j % PAGE)",
    "attention_paged int8",
  ],
  ["rope_kv int8 head_dim<=64", "kv_scale(top_of(1u))", "kv_scale(top_of(0u))", "attention_paged int8"],
  [
    "rope_kv int8 head_dim<=64",
    "kv_word(vec4f(key[d + 0u], key[d + 1u]",
    "kv_word(vec4f(key[d + 1u], key[d + 0u]",
    "attention_paged int8",
  ],
  ["norm_matmul affine4 M=8 broadcast4", "step = (step + 2u) & 3u", "step = 0u", "norm_matmul affine4"],
  ["norm_matmul affine4 M=1 broadcast4", "^ vec4u(0x80000000u)", "", "norm_matmul affine4"],
  [
    "norm_matmul affine4 M=8 broadcast4",
    "subgroupBroadcast(own1, 3u)",
    "subgroupBroadcast(own1, 2u)",
    "norm_matmul affine4",
  ],
  ["norm_gate_up affine4 M=4 broadcast4", "var left = group_units", "var left = 2u", "norm_gate_up affine4"],
  [
    "norm_matmul e2m1 M=1 broadcast4",
    "w += select(0u, 32u, run_ends)",
    "w += select(32u, 0u, run_ends)",
    "norm_matmul e2m1",
  ],
  [
    "matmul_residual affine4 M=4 own sums broadcast4",
    "quads[1] = select(quads[1], vec4f(), run_ends)",
    "",
    "matmul_residual affine4",
  ],
  ["norm_matmul affine4 M=1 broadcast4", "zero_bit & 31u", "0u", "norm_matmul affine4/32/f16/zeros"],
  ["norm_matmul affine4 M=2 broadcast4", "pair + 1u", "pair", "norm_matmul affine4"],
  ["norm_matmul e2m1 M=2 broadcast4", "8u * (g & 3u)", "0u", "norm_matmul e2m1"],
  ["norm_matmul e2m1 M=1 broadcast4", "select(0u, 1u, kind == 4u)", "0u", "norm_matmul e2m1/16/e4m3"],
  ["norm_matmul affine4 M=4 broadcast4", "i + 4u < params.x_runs", "true", "norm_matmul affine4"],
  ["norm_gate_up affine4 M=2 broadcast4", "4u * (i & 1u) + lane", "lane", "norm_gate_up affine4"],
  ["matmul_residual affine4 M=2 broadcast4", "subgroupBroadcast(u1, 3u)", "vec4f()", "matmul_residual affine4"],
  ["attention_paged f16 head_dim<=64 broadcast4", "select(raw0_0, vec4f(), broken0_0)", "raw0_0", "broken one"],
  ["attention_paged f32 head_dim<=64 broadcast4", "sum_bad0, is_bad0", "given0_0, is_bad0", "broken one"],
  [
    "attention_paged f32 head_dim<=64 broadcast4",
    "select(parts[0], fma(",
    "select(parts[0], 0.999 * fma(",
    "same_bits attention f32",
  ],
  ["attention_paged int8 head_dim<=64 broadcast4", "* value_scale1", "* value_scale0", "attention_paged int8"],
  [
    "attention_row f32 head_dim<=64 broadcast4",
    "let inside = step * 4u + sub < params.head_dim",
    "let inside = true",
    "same_bits attention f32 window=40",
  ],
  [
    "attention_row f16 head_dim<=64 broadcast4",
    "subgroupBroadcast(sum0, 1u)",
    "subgroupBroadcast(sum0, 0u)",
    "attention_fused f16",
  ],
  ["attention_fused f16 head_dim<=64", "reverseBits(z) >>", "(z << 31u) >>", "same_bits attention f16"],
  ["attention_reduce", "fma(o, keep, part * take)", "o + part * take", "split"],
  ["rope_kv f16 head_dim<=64", "select(sine, -sine, first)", "sine", "attention_paged f16"],
  ["rope_kv f16 head_dim<=64", "(v - head.mean)", "v", "norm=layer"],
  ["rope_kv f32 head_dim<=64", "index * params.norm_stride", "0u", "norm=layer"],
  ["rope_kv f32 head_dim<=64", "if (head < unit.heads) {", "{", "attention_paged f32"],
  ["attention_fused f16 head_dim<=64", "clamp(v, -params.clip, params.clip)", "v", "clip="],
  [
    "attention_fused f16 head_dim<=64",
    "if (params.norm_after == 1u) { return normed(head, v, d); }",
    "",
    "norm=rms-after",
  ],
  ["attention_reduce", "exp(min(-g, 80.0))", "exp(min(g, 80.0))", "gated"],
  ["narrow bytes", "/ bitcast<f32>(top)", "/ (1.01 * bitcast<f32>(top))", "narrow bytes"],
  ["narrow bytes", "scale * sum_of(first)", "sum_of(first)", "narrow bytes"],
  ["narrow halves", "254u - exponent(top)", "253u - exponent(top)", "narrow halves"],
  ["narrow halves", "size.x, size.y), max(size.z, size.w)", "v.x, v.y), max(v.z, v.w)", "narrow halves"],
  ["norm_matmul affine8 M=1 bytes", "^ vec4u(0x80808080u)", "", "norm_matmul affine8"],
  ["latent_kv f32", "(x[base + d] * inverse)", "x[base + d]", "latent_kv f32"],
  ["latent_kv f16", "x[base + params.latent + turn.other]", "x[base + turn.other]", "latent_kv f16"],
  ["latent_kv f16", "square = fma(v, v, square)", "square = fma(u, u, square)", "latent_kv f16"],
  ["latent_query f16 four rows", "n + 2u < params.nope", "n + 2u <= params.nope", "latent_query f16"],
  ["latent_query affine4", "k = order[k];", "", " sorted"],
  ["latent_query affine4", "g.bias[0]", "0.0", "latent_query affine4"],
  ["latent_query f16", "fma(q[at + d], turn.cos", "fma(q[at], turn.cos", "latent_query f16"],
  [
    "latent_attention f16 width<=128",
    "return k_at(page, kv_head, word, token);",
    "return k_at(page, kv_head, word, token ^ 1u);",
    "latent_attention f16",
  ],
  ["latent_attention f32 width<=128", "kv[at + 1u]", "kv[at + 2u]", "latent_attention f32"],
  [
    "latent_value f16 four rows",
    "params.rows - 1u) * params.heads + head",
    "params.rows - 1u) * params.heads",
    "latent_value f16",
  ],
  ["latent_value affine4", "n < params.value_dim", "true", "latent_value affine4"],
  ["pad_rows", "k < params.cols", "true", "pad_rows"],
  ["short_conv", "if (sequence.fresh) { return vec4f(); }", "", "short_conv"],
  ["short_conv", "params.taps - 2u - i, quad", "params.taps - 1u - i, quad", "short_conv"],
  ["short_conv", "sum = aux[params.bias + quad]", "sum = vec4f()", "bias past"],
  ["short_conv", "row < sequence.end) {\n      if", "true) {\n      if", "short_conv"], // rows of the next sequence
  ["short_conv", "goes_on(first)", "false", "short_conv"],
  ["delta_rule", "row == first && row_word", "row_word", "delta_rule"],
  ["delta_rule", "beta;", "1.0;", "delta_rule"],
  ["delta_rule", "head / params.group", "head", "delta_rule"],
  ["delta_rule", "max(v, 0.0) + 2.0 * s * p", "max(v, 0.0) + s * p", "shift=-"],
  ["delta_rule", "factor * aux[params.weight + v]", "factor", "delta_rule"],
  ["norm_matmul affine4 M=1 wide", "let group = part *", "let group = min(part, 1u) + part *", "wide,parts="],
  ["norm_matmul affine4 M=8 wide", "for (var part = 1u;", "for (var part = 2u;", "wide,parts="],
  ["matmul_residual affine4 M=8 wide", "let is_there = unit < params.units", "let is_there = true", "wide,parts="],
  ["norm_gate_up affine4 M=8 wide", "m < 8u && unit < params.units", "m < 8u", "wide,parts="],
  ["norm_matmul affine4 M=8 wide", "8u * part +", "8u * ((1u << params.part_bits) - part) +", " wide M=1"],
  ["norm_matmul affine4 M=8 wide", "half = c.high", "half = c.low", " wide M=1"],
  ["norm_matmul e2m1 M=4 wide", "step += params.run_steps", "step = 0u", "norm_matmul e2m1/16/f32 M=5/4 "],
  ["matmul_residual affine4 M=4 own sums wide", "k - 8u * params.group_runs", "k", "residual affine4 wide M=1"],
  ["qk_norm", "select(params.heads, params.kv_heads, is_key)", "params.heads", "norm=projection"],
] as const;

/** Changes the code of a kernel until `restore` is called. */
function breakKernel(name: string, from: string, to: string): { restore(): void } {
  const kernel: { code: string } | undefined = everyKernel().find((it) => it.name === name);
  if (kernel === undefined) throw new RangeError(`no kernel is called "${name}"`);
  const { code } = kernel;
  if (!code.includes(from)) throw new RangeError(`${name}: no "${from}" in it; the mutation needs the line's new text`);
  kernel.code = code.replace(from, to);
  return {
    restore() {
      kernel.code = code;
    },
  };
}

/** Only on SwiftShader, which compiles a kernel in a fraction of a second; lavapipe takes up to 15 s for each broken one. */
const HERE = process.env.INGLE_SUITE === "full" && /swiftshader/i.test(process.env.INGLE_ADAPTER ?? "");

describe.runIf(HERE)("cases notice", () => {
  /** As models run on it, and without features: then x and queries come from storage. */
  let own: Gpu;
  let plain: Gpu;
  beforeAll(async () => {
    own = await openGpu();
    plain = await openGpu({ features: "none" });
  });
  afterAll(() => {
    own.close();
    plain.close();
  });

  test.each(MUTATIONS)("%s with %j replaced by %j", async (kernel, from, to, filter) => {
    const asked = allCases().filter(({ title }) => title.includes(filter));
    const bed = new Testbed(kernel.endsWith(" broadcast4") ? own : plain); // its pipelines are its own, so the broken one stays here
    const broken = breakKernel(kernel, from, to);
    try {
      let noticed = "";
      for (const it of asked.slice(0, 60)) {
        const { passed, title, why } = await bed.check(it);
        if (!passed) noticed = `${title}: ${why}`;
        if (!passed) break;
      }
      expect(noticed).not.toBe("");
      expect(noticed).not.toContain("error at line"); // a mutation that does not compile shows nothing
    } finally {
      broken.restore();
      bed.close();
    }
  });
});
