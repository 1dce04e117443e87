/** ingle as one of the engines: through `generate`, as every user meets it. */
import { Engine } from "../../engine/engine.ts";
import type { SharedDevice } from "../../engine/options.ts";
import { llamaFolder } from "./llamaFolder.ts";
import type { Peer } from "./peer.ts";
import type { RandomLlama } from "./randomLlama.ts";

/** Loads the model. */
export async function inglePeer(model: RandomLlama, device: SharedDevice): Promise<Peer> {
  const engine = await Engine.load(llamaFolder(model), { device });
  return {
    name: "ingle · WebGPU, f32",
    async answer(prompt, count) {
      const tokens: number[] = [];
      const start = performance.now();
      let first = start;
      for await (const { token } of engine.generate({
        tokens: [...prompt],
        maxTokens: count,
        temperature: 0,
        ignoreEos: true,
      })) {
        if (tokens.length === 0) first = performance.now();
        tokens.push(token);
      }
      return { promptMs: first - start, decodeMs: performance.now() - first, tokens };
    },
    close: () => engine.close(),
  };
}
