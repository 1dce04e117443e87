#!/usr/bin/env node
/** `node dist/bench/peers/main.js`: ingle and its peers on one random model, by turns, on one adapter. */
import { parseArgs } from "node:util";
import { openGpu } from "../../device/gpu.ts";
import { PipelineCache } from "../../device/pipelines.ts";
import { Random } from "../../kernels/testbed.ts";
import { median } from "../statistics.ts";
import { markdown } from "../tables.ts";
import { inglePeer } from "./inglePeer.ts";
import { onnxPeer, onnxVersion } from "./onnxPeer.ts";
import type { Peer, PeerAnswer } from "./peer.ts";
import { randomLlama, SMOLLM2_135M } from "./randomLlama.ts";

const { values } = parseArgs({
  options: {
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "16" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    layers: { type: "string", default: String(SMOLLM2_135M.layers) },
  },
});
const [promptTokens, tokens, rounds] = [values.prompt, values.tokens, values.rounds].map(Number);
if (promptTokens === undefined || tokens === undefined || rounds === undefined) throw new RangeError("numbers");
const model = randomLlama({ ...SMOLLM2_135M, layers: Number(values.layers) }, 1);
const gpu = await openGpu();
console.log(gpu.adapter.name, gpu.adapter.driver, onnxVersion());
const device = { gpu, pipelines: new PipelineCache(gpu) };
const make: [string, () => Promise<Peer>][] = [
  ["ingle", () => inglePeer(model, device)],
  ["webgpu0", () => onnxPeer(model, { provider: "webgpu", accuracy: 0 })],
  ["webgpu4", () => onnxPeer(model, { provider: "webgpu", accuracy: 4 })],
  ["cpu0", () => onnxPeer(model, { provider: "cpu", accuracy: 0 })],
  ["cpu4", () => onnxPeer(model, { provider: "cpu", accuracy: 4 })],
];
const peers: Peer[] = [];
for (const [name, it] of make) {
  if (!name.includes(values.only) && values.only !== "") continue;
  const start = performance.now();
  peers.push(await it());
  console.error(name, "loaded", ((performance.now() - start) / 1000).toFixed(1));
}
const random = new Random(7);
const answers = new Map<Peer, PeerAnswer[]>();
for (let round = -1; round < rounds; round++) {
  const prompt = Array.from({ length: promptTokens }, () => random.below(model.shape.vocab));
  for (const peer of peers) {
    const answer = await peer.answer(prompt, 1 + tokens);
    console.error(peer.name, round, answer.promptMs.toFixed(0), answer.decodeMs.toFixed(0), answer.tokens.join());
    if (round >= 0) answers.set(peer, [...(answers.get(peer) ?? []), answer]);
  }
}
const rows = peers.map((peer) => {
  const own = answers.get(peer) ?? [];
  return [
    peer.name,
    ((1000 * promptTokens) / median(own.map((a) => a.promptMs))).toFixed(1),
    ((1000 * tokens) / median(own.map((a) => a.decodeMs))).toFixed(2),
  ];
});
console.log(markdown(["engine", ">pp", ">tg"], rows));
for (const peer of peers) await peer.close();
gpu.close();
process.exit(0);
