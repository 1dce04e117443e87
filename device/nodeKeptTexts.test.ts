import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { nodeKeptTexts } from "./nodeKeptTexts.ts";

const root = mkdtempSync(join(tmpdir(), "ingle-kept-"));
afterAll(() => rmSync(root, { recursive: true }));

test("keeps texts by name, the last one written", async () => {
  const folder = join(root, "a", "b");
  const kept = nodeKeptTexts([folder]);
  expect(await kept.read("x.json")).toBeUndefined();
  await kept.write("x.json", "1");
  await kept.write("x.json", "2");
  await kept.write("y.json", "3");
  expect([await kept.read("x.json"), await kept.read("y.json")]).toEqual(["2", "3"]);
  expect(readdirSync(folder).sort()).toEqual(["x.json", "y.json"]);
});

test("a folder that cannot be written leaves it to the next, and none at all to nobody", async () => {
  const file = join(root, "file");
  writeFileSync(file, "");
  const [blocked, open] = [join(file, "inside"), join(root, "open")];
  await nodeKeptTexts([blocked, open]).write("x.json", "1");
  expect(await nodeKeptTexts([open]).read("x.json")).toBe("1");
  expect(await nodeKeptTexts([blocked, open]).read("x.json")).toBe("1");
  const nowhere = nodeKeptTexts([blocked]);
  await nowhere.write("x.json", "1");
  expect(await nowhere.read("x.json")).toBeUndefined();
});
