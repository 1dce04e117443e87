/** Logits on disk: a file that the strict reader accepts, written in any order. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openFile } from "../device/nodeFiles.ts";
import { openWeights } from "../models/weights/checkpoint.ts";
import { LogitsFile } from "./logitsFile.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "ingle-logits-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const VOCABULARY = 5;
const row = (prompt: number, position: number) =>
  Float32Array.from({ length: VOCABULARY }, (_, i) => 100 * prompt + 10 * position + i + 0.5);

test("rows of several prompts come back as they were written", async () => {
  const path = join(folder, "logits.safetensors");
  const prompts = [[7, 8, 9], [1], [4, 4]];
  const file = LogitsFile.create(path, prompts, VOCABULARY);
  for (const position of [2, 1, 0])
    for (const [prompt, { length }] of prompts.entries())
      if (position < length) file.write(prompt, position, row(prompt, position));
  file.close();
  const checkpoint = await openWeights(await openFile(path));
  try {
    expect([...checkpoint.tensors.values()].map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual(
      prompts.map(({ length }, i) => [`logits.${i}`, "F32", [length, VOCABULARY]]),
    );
    for (const [prompt, { length }] of prompts.entries()) {
      const bytes = await checkpoint.read(`logits.${prompt}`);
      const want = Array.from({ length }, (_, position) => [...row(prompt, position)]).flat();
      expect([...new Float32Array(bytes.buffer)]).toEqual(want);
    }
  } finally {
    await checkpoint.close();
  }
});

test("half a file is deleted, and a file that cannot be written is named", () => {
  const path = join(folder, "half.safetensors");
  const file = LogitsFile.create(path, [[1, 2]], VOCABULARY);
  file.write(0, 0, row(0, 0));
  file.discard();
  expect(existsSync(path)).toBe(false);
  const nowhere = join(folder, "missing", "x.safetensors");
  expect(() => LogitsFile.create(nowhere, [[1]], VOCABULARY)).toThrow("x.safetensors: cannot be written (ENOENT)");
});
