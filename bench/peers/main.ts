#!/usr/bin/env node
/** `node dist/bench/peers/main.js`: ingle and its peers on one random model, by turns, on one adapter (docs/benchmarks.md). */
import { parseArgs } from "node:util";
import { IngleError } from "../../device/errors.ts";
import { type Gpu, openGpu } from "../../device/gpu.ts";
import { PipelineCache } from "../../device/pipelines.ts";
import { measureMatmuls } from "./gpuJs.ts";
import { inglePeer } from "./inglePeer.ts";
import { onnxPeer, onnxVersion } from "./onnxPeer.ts";
import type { Peer } from "./peer.ts";
import { byTurns, matmulTable, peerTable } from "./peerReport.ts";
import { randomLlama, SMOLLM2_135M } from "./randomLlama.ts";

const USAGE = `node dist/bench/peers/main.js [--prompt 128] [--tokens 16] [--rounds 3] [--part models|matmuls]
Measures a random model of SmolLM2-135M's shape in 4 bits with ingle and with ONNX Runtime, and a matmul in a page with ingle and
with gpu.js. INGLE_ADAPTER chooses the adapter of the models.`;
const SEED = 1;

/** Both parts, or the one that is asked for. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      prompt: { type: "string", default: "128" },
      tokens: { type: "string", default: "16" },
      rounds: { type: "string", default: "3" },
      part: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help === true) {
    console.log(USAGE);
    return 0;
  }
  const { prompt, tokens, rounds } = {
    prompt: count(values, "prompt"),
    tokens: count(values, "tokens"),
    rounds: count(values, "rounds"),
  };
  let agreed = true;
  if (values.part !== "matmuls") {
    const gpu = await openGpu();
    try {
      agreed = await models(gpu, { prompt, tokens, rounds });
    } finally {
      gpu.close();
    }
  }
  if (values.part !== "models") console.log(`\n${matmulTable(await measureMatmuls())}`);
  return agreed ? 0 : 1;
}

function count(values: Readonly<Record<string, unknown>>, name: string): number {
  const value = Number(values[name]);
  if (Number.isInteger(value) && value >= 1 && value <= 512) return value;
  throw new RangeError(`--${name}: is ${JSON.stringify(values[name])}, expected a whole number from 1 to 512`);
}

/** Whether the first token of every answer was the same in all engines. */
async function models(
  gpu: Gpu,
  counts: { readonly prompt: number; readonly tokens: number; readonly rounds: number },
): Promise<boolean> {
  const model = randomLlama(SMOLLM2_135M, SEED);
  const version = onnxVersion();
  const peers: Peer[] = [];
  try {
    peers.push(await inglePeer(model, { gpu, pipelines: new PipelineCache(gpu) }));
    for (const provider of ["webgpu", "cpu"] as const) {
      for (const accuracy of [0, 4] as const) peers.push(await onnxPeer(model, { provider, accuracy }));
    }
    const { name, driver } = gpu.adapter;
    console.log(
      `${name} · ${driver} · node ${process.version} · onnxruntime-node ${version} · ${new Date().toISOString()}`,
    );
    console.log(`prompts of ${counts.prompt} tokens, ${counts.tokens} more one by one, ${counts.rounds} rounds\n`);
    const measured = await byTurns(peers, model.shape.vocab, counts, (line) => console.error(line));
    const { text, agreed } = peerTable(measured, counts);
    console.log(text);
    return agreed;
  } finally {
    for (const peer of peers) await peer.close();
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof IngleError || error instanceof RangeError ? error.message : error);
  process.exitCode = 1;
}
