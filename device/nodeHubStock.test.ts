/** What is in the cache: listed, and removed. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { COMMIT, FILE, HubScene, OTHER, refused, WEIGHTS } from "../test/hubScene.ts";
import { withLock } from "./nodeHubLock.ts";
import { cachedModels, planRemoval, remove } from "./nodeHubStock.ts";

const scene = new HubScene();
beforeAll(scene.start);
afterAll(scene.stop);
beforeEach(scene.reset);

describe("what is in the cache", () => {
  const both = async () => {
    await scene.pull();
    scene.move();
    await scene.pull();
  };

  test("is listed with its revisions, sizes and what was broken off", async () => {
    expect(await cachedModels(join(scene.cache, "none"))).toEqual([]);
    await both();
    rmSync(join(scene.snapshot(), "config.json"));
    writeFileSync(`${scene.blob()}.incomplete`, "1234");
    mkdirSync(join(scene.cache, "datasets--a--b/snapshots"), { recursive: true });
    const [model, ...more] = await cachedModels(scene.cache);
    expect(more).toEqual([]);
    expect(model).toMatchObject({ name: "owner/name", unfinished: 4 });
    expect(model?.revisions.map(({ commit, refs, complete }) => ({ commit, refs, complete }))).toEqual([
      { commit: COMMIT, refs: [], complete: false },
      { commit: OTHER, refs: ["main"], complete: true },
    ]);
    expect(model?.revisions[1]?.bytes).toBe(WEIGHTS.length + 22 + 9 + 7);
    expect(Date.now() - Number(model?.revisions[1]?.lastUsed)).toBeLessThan(60_000);
  });

  test("goes by one revision, and what the other one uses stays", async () => {
    await both();
    const plan = await planRemoval(scene.cache, "owner/name", COMMIT.slice(0, 7));
    expect(plan.bytes).toBe(2); // the old tokenizer.json
    await remove(plan);
    expect(readdirSync(join(scene.folder, "snapshots"))).toEqual([OTHER]);
    expect(readFileSync(join(scene.snapshot(OTHER), FILE)).equals(WEIGHTS)).toBe(true);
    expect(scene.blobs()).toHaveLength(4);
    await remove(await planRemoval(scene.cache, "owner/name", "main"));
    expect(existsSync(scene.folder)).toBe(false);
  });

  test("goes as a whole, with what was broken off", async () => {
    await both();
    writeFileSync(`${scene.blob()}.incomplete`, "1234");
    await remove(await planRemoval(scene.cache, "owner/name", undefined));
    expect(readdirSync(scene.cache)).toEqual([".locks"]);
  });

  test("is refused where it is not there, leads out of the cache, or is being downloaded", async () => {
    expect(await refused(planRemoval(scene.cache, "owner/name", undefined), "SOURCE_MISSING")).toContain(
      "`ingle ls` lists what is",
    );
    await scene.pull();
    expect(await refused(planRemoval(scene.cache, "owner/name", "v9"), "SOURCE_MISSING")).toContain(
      "owner/name@v9: is not in the cache; there are main = 0123456789ab",
    );
    const outside = mkdtempSync(join(tmpdir(), "ingle-outside-"));
    writeFileSync(join(outside, "precious"), "");
    symlinkSync(outside, join(scene.cache, "models--a--b"));
    expect(await refused(planRemoval(scene.cache, "a/b", undefined), "SOURCE_NAME")).toContain("leads out of it");
    expect(lstatSync(join(outside, "precious")).isFile()).toBe(true);
    rmSync(outside, { recursive: true });
    const plan = await planRemoval(scene.cache, "owner/name", undefined);
    await withLock(plan.repo.lock, {}, async () => {
      expect(await refused(remove(plan), "SOURCE_BUSY")).toContain("owner/name: another process is downloading it");
    });
    expect(existsSync(join(scene.snapshot(), FILE))).toBe(true);
  });
});
