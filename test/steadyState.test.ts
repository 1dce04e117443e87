/** The steady state: a thousand tokens leave nothing behind, on the CPU and on the GPU. In a file of its own, so that its heap is its own. */
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test } from "vitest";
import { countingDevice } from "./countingDevice.ts";
import { answer, sharedDevice, withEngine } from "./sharedDevice.ts";
import { tinyFolder, tinyModel } from "./tinyModel.ts";

const TOKENS = 200;
const { gpu, pipelines } = await sharedDevice();
const { gpu: counted, counts } = countingDevice(gpu);

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

test("a thousand tokens: the heap is as large as before, and nothing was made on the GPU", {
  timeout: 300_000,
}, async () => {
  const model = tinyFolder(tinyModel({ layers: 1, context: 256 }));
  await withEngine(model, { device: { gpu: counted, pipelines }, context: 256 }, async (engine) => {
    const some = async (answers: number) => {
      for (let i = 0; i < answers; i++) {
        const { last } = await answer(engine, { tokens: [1, 40, 47], maxTokens: TOKENS, seed: 1, ignoreEos: true });
        expect(last.usage?.completionTokens).toBe(TOKENS);
      }
      collect();
      return getHeapStatistics();
    };
    let before = await some(4); // by now every page was met
    counts.reset();
    const grown: { heap: number; external: number }[] = [];
    for (let i = 0; i < 3; i++) {
      const after = await some(2);
      grown.push({
        heap: after.used_heap_size - before.used_heap_size,
        external: after.external_memory - before.external_memory,
      });
      before = after;
    }
    expect({ bindGroups: counts.bindGroups, buffers: counts.buffers, pipelines: counts.pipelines }).toEqual({
      bindGroups: 0,
      buffers: 0,
      pipelines: 0,
    });
    expect(counts.submits).toBeLessThanOrEqual(6 * TOKENS);
    // What is compiled late grows once; what is left behind by each token, even one small object, grows each time.
    expect(Math.min(...grown.map(({ heap }) => heap))).toBeLessThan(48 * 2 * TOKENS);
    expect(Math.min(...grown.map(({ external }) => external))).toBeLessThan(8 * 2 * TOKENS);
    expect(engine.stats().device.encodeMs).toBeGreaterThan(0);
  });
});
