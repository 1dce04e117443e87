import { expect, test } from "vitest";
import type { AdapterDescription } from "../device/adapters.ts";
import type { KeptTexts } from "../device/files.ts";
import { selfTestLines, selfTestReport } from "./selfTestReport.ts";

const adapter = {
  name: "llvmpipe",
  vendor: "mesa",
  architecture: "",
  driver: "25.0.7",
  kind: "software",
} as AdapterDescription;
const found = (text: string): KeptTexts => ({ read: async () => text, write: async () => {} });
const none = "  self-test: none yet; a model's first run tries what it uses, `ingle doctor --self-test` everything";

test("says what passed, when, and what is off for what reason", () => {
  const failed = [{ title: "self_test norm_matmul f32 M=4 against one row", variant: "M=4", why: "not equal" }];
  expect(selfTestLines({ passed: 13, tests: 88, last: "2026-11-25T21:00:00.000Z", off: ["M=4"], failed })).toEqual([
    "  self-test: 13 passed, 1 failed, 74 not tried yet, the last on 2026-11-25 · off: M=4",
    "  M=4 is off: self_test norm_matmul f32 M=4 against one row: not equal",
  ]);
  const wrong = [{ title: "sample", variant: null, why: "ids: not equal" }];
  expect(selfTestLines({ passed: 0, tests: 88, last: "2026-11-25T21:00:00.000Z", off: [], failed: wrong })).toEqual([
    "  self-test: 0 passed, 1 failed, 87 not tried yet, the last on 2026-11-25",
    "  wrong: sample: ids: not equal",
  ]);
});

test("knows nothing of other kernels than ours, and of a text that is not ours", async () => {
  const outcome = { hash: "of other code", date: "2026-11-25T21:00:00.000Z", variant: null, why: "" };
  const title = "self_test norm_matmul f32 M=4 against one row";
  for (const text of [JSON.stringify({ tests: { [title]: outcome } }), "{", "[]", JSON.stringify({ tests: "none" })]) {
    const report = await selfTestReport(found(text), adapter);
    expect(report).toMatchObject({ passed: 0, last: null, off: [], failed: [] });
    expect(report.tests).toBeGreaterThan(50);
    expect(selfTestLines(report)).toEqual([none]);
  }
});
