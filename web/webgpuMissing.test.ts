import { expect, test } from "vitest";
import { webgpuMissing } from "./webgpuMissing.ts";

/** A browser that gives this adapter away. */
const gives = (adapter: GPUAdapter | null) => ({ gpu: { requestAdapter: async () => adapter } });
// The page asks only whether it is there.
const adapter = {} as GPUAdapter;

test.each([
  ["over http", { isSecureContext: false, navigator: {} }, "Open it at an https:// address"],
  ["without WebGPU", { isSecureContext: true, navigator: {} }, "Use Chrome or Edge 113, Safari 26, Firefox 141"],
  ["without an adapter", { isSecureContext: true, navigator: gives(null) }, "Switch graphics acceleration on"],
])("%s: says what to do", async (_, host, words) => {
  const sentence = await webgpuMissing(host);
  expect(sentence).toMatch(/^WebGPU is missing: /);
  expect(sentence).toContain(words);
});

test("is undefined where nothing is missing", async () => {
  expect(await webgpuMissing({ isSecureContext: true, navigator: gives(adapter) })).toBeUndefined();
});
