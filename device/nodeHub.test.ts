/** A model of the hub: what is found or fetched, into which cache, and what a cache serves alone. */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { COMMIT, FILE, HubScene, OTHER, refused, WEIGHTS } from "../test/hubScene.ts";
import { HubRepo } from "../test/hubServer.ts";
import { diskError } from "./nodeHubErrors.ts";
import type { DownloadProgress } from "./nodeHubPull.ts";

const scene = new HubScene();
beforeAll(scene.start);
afterAll(scene.stop);
beforeEach(scene.reset);

describe("a model of the hub", () => {
  test("comes into the cache as Python's tools lay it out, with the files that an engine reads", async () => {
    const { commit, path } = await scene.pull();
    expect([commit, path]).toEqual([COMMIT, scene.snapshot()]);
    expect(readdirSync(path).sort()).toEqual(["config.json", FILE, "tokenizer.json", "tokenizer_config.json"]);
    expect(scene.blobs()).toEqual(
      ["config.json", FILE, "tokenizer.json", "tokenizer_config.json"].map((it) => scene.repo.hash(it)).sort(),
    );
    expect(readlinkSync(join(path, FILE))).toBe(`../../blobs/${createHash("sha256").update(WEIGHTS).digest("hex")}`);
    expect(readFileSync(join(path, FILE)).equals(WEIGHTS)).toBe(true);
    expect(readFileSync(join(scene.folder, "refs/main"), "utf8")).toBe(COMMIT);
    expect(readdirSync(join(scene.cache, ".locks/models--owner--name"))).toEqual([]);
  });

  test("takes one request when it is there, and none by its commit", async () => {
    await scene.pull();
    scene.server.seen = [];
    await scene.pull();
    expect(scene.server.seen.map(({ path }) => path)).toEqual(["/api/models/owner/name/revision/main"]);
    scene.server.seen = [];
    await scene.pull(`owner/name@${COMMIT}`);
    expect(scene.server.seen).toEqual([]);
  });

  test("is looked up again when its branch moved, and files that are the same are not fetched again", async () => {
    await scene.pull();
    scene.move();
    scene.server.seen = [];
    expect((await scene.pull()).commit).toBe(OTHER);
    expect(scene.server.seen.filter(({ path }) => path.includes("/resolve/")).map(({ path }) => path)).toEqual([
      `/owner/name/resolve/${OTHER}/tokenizer.json`,
    ]);
    expect(readFileSync(join(scene.folder, "refs/main"), "utf8")).toBe(OTHER);
    expect(existsSync(join(scene.snapshot(), "config.json"))).toBe(true);
  });

  test("has the shards that its index names, and no stray weights", async () => {
    scene.repo.files.set(
      "model.safetensors.index.json",
      new TextEncoder().encode(
        '{"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-1.safetensors","d":"../../evil.safetensors"}}',
      ),
    );
    scene.repo.files.set("x-1.safetensors", WEIGHTS.subarray(0, 100));
    await expect(scene.pull().then(({ path }) => path)).rejects.toThrow(
      "owner/name: model.safetensors.index.json names 1 files that are not in the repository: x-2.safetensors",
    );
    expect(existsSync(scene.snapshot())).toBe(false);
    scene.repo.files.set("x-2.safetensors", WEIGHTS.subarray(100, 300));
    const { path } = await scene.pull();
    expect(
      readdirSync(path)
        .filter((file) => file.endsWith(".safetensors"))
        .sort(),
    ).toEqual(["x-1.safetensors", "x-2.safetensors"]);
  });

  test("that is none for ingle is refused before anything is fetched", async () => {
    scene.server.repos.set(
      "owner/name",
      new HubRepo(COMMIT, { "config.json": "{}", "pytorch_model.bin": "x", "a.gguf": "y" }),
    );
    const message = await refused(scene.pull(), "SOURCE_MISSING");
    expect(message).toContain(
      "owner/name: has no model.safetensors, it holds config.json, pytorch_model.bin, a.gguf; look for",
    );
    expect(scene.server.seen).toHaveLength(1);
  });

  test("is asked for with the token, which no other origin sees", async () => {
    await scene.pull("owner/name", { token: "secret" });
    const hub = scene.server.seen.filter(({ place }) => place === "hub");
    const store = scene.server.seen.filter(({ place }) => place === "store");
    expect(hub.length).toBeGreaterThan(5);
    expect(new Set(hub.map(({ authorization }) => authorization))).toEqual(new Set(["Bearer secret"]));
    expect(store.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("whose list goes on at another origin does not take the token there", async () => {
    scene.server.intercept = (_request, response, { place, path }) => {
      if (place !== "hub" || !path.includes("/tree/")) return false;
      const link = `<${scene.server.store}/api/models/owner/name/tree/${COMMIT}>; rel="next"`;
      return Boolean(response.writeHead(200, { "content-type": "application/json", link }).end("[]"));
    };
    await refused(scene.pull("owner/name", { token: "secret" }), "SOURCE_(HTTP|MISSING|DENIED)");
    const store = scene.server.seen.filter(({ place }) => place === "store");
    expect(store.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("tells how far it is: never more than all, and all at the end", async () => {
    const told: DownloadProgress[] = [];
    await scene.pull("owner/name", { onProgress: (progress) => told.push(progress) });
    expect(told.every(({ loaded, total }) => loaded <= total)).toBe(true);
    expect(told.at(-1)).toEqual({ file: FILE, loaded: WEIGHTS.length, total: WEIGHTS.length });
  });

  test("downloaded by two at once is fetched once", async () => {
    const both = await Promise.all([scene.pull(), scene.pull()]);
    expect(both.map(({ commit }) => commit)).toEqual([COMMIT, COMMIT]);
    expect(scene.server.fetches(FILE)).toHaveLength(1);
    expect(scene.notes).toEqual(["owner/name: another process is downloading it; waiting"]);
  });
});

describe("a cache", () => {
  test("serves without a single request when offline", async () => {
    await scene.pull();
    scene.server.seen = [];
    expect((await scene.pull("owner/name", { offline: true })).path).toBe(scene.snapshot());
    expect(scene.server.seen).toEqual([]);
  });

  test.each([
    ["config.json", "owner/name: is not whole in the cache"],
    [FILE, `: ${FILE} missing, and HF_HUB_OFFLINE is set; unset it and pull once`],
  ])("that lacks %s is not used offline", async (path, words) => {
    await scene.pull();
    rmSync(join(scene.snapshot(), path));
    expect(await refused(scene.pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(words);
  });

  test("without the model, or without that revision, says so offline", async () => {
    expect(await refused(scene.pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name: is not in the cache",
    );
    await scene.pull();
    expect(await refused(scene.pull("owner/name@v1", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name@v1: is not",
    );
  });

  test("serves where the hub cannot be reached, and says so", async () => {
    await scene.pull();
    const gone = "http://127.0.0.1:9"; // the port of discard, which nobody has
    expect((await scene.pull("owner/name", { endpoint: gone })).path).toBe(scene.snapshot());
    expect(scene.notes.join()).toMatch(/^owner\/name: fetching failed 2 times.*; using 0123456789ab from the cache$/);
    expect(scene.slept).toHaveLength(1);
  });

  test("that Python's tools filled is used, what it lacks is fetched, and nothing else", async () => {
    mkdirSync(join(scene.folder, "blobs"), { recursive: true });
    mkdirSync(scene.snapshot(), { recursive: true });
    writeFileSync(scene.blob(), WEIGHTS);
    symlinkSync(`../../blobs/${scene.repo.hash(FILE)}`, join(scene.snapshot(), FILE));
    await scene.pull();
    expect(scene.server.fetches(FILE)).toEqual([]);
    expect(scene.server.fetches("config.json")).toHaveLength(1);
  });

  test("that cannot take the last of the links is not used as if it had", async () => {
    mkdirSync(join(scene.snapshot(), "tokenizer_config.json/in the way"), { recursive: true });
    expect(await refused(scene.pull(), "SOURCE_IO")).toContain("tokenizer_config.json: cannot be written");
    expect(readdirSync(scene.snapshot()).sort()).toEqual([FILE, "tokenizer.json", "tokenizer_config.json"]);
    expect(await refused(scene.pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name: is not in the cache",
    );
    expect(await refused(scene.pull(`owner/name@${COMMIT}`, { offline: true }), "SOURCE_OFFLINE")).toContain(
      ": config.json missing",
    );
  });

  test("with a cut blob gets it whole", async () => {
    await scene.pull();
    writeFileSync(scene.blob(), WEIGHTS.subarray(0, 10));
    rmSync(join(scene.snapshot(), "config.json"));
    await scene.pull();
    expect(readFileSync(join(scene.snapshot(), FILE)).equals(WEIGHTS)).toBe(true);
  });

  test("too small for the model is refused before anything large is fetched", async () => {
    scene.repo.wrongSizes.set(FILE, 2 ** 60);
    expect(await refused(scene.pull(), "SOURCE_DISK_FULL")).toContain("owner/name: 1099511627776 MiB are to come");
    expect(scene.server.fetches(FILE)).toEqual([]);
  });

  test("that cannot be made is an error with a way out", async () => {
    const file = join(scene.cache, "file");
    writeFileSync(file, "");
    const settings = { endpoint: scene.server.endpoint, token: undefined, offline: false, cache: file };
    expect(await refused(scene.pull("owner/name", { settings }), "SOURCE_IO")).toContain("HF_HUB_CACHE");
    const errorOf = (code: string) => diskError("/c", Object.assign(new Error(), { code }));
    expect(["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO"].map((code) => errorOf(code).code)).toEqual([
      "SOURCE_DISK_FULL",
      "SOURCE_DISK_FULL",
      "SOURCE_READ_ONLY",
      "SOURCE_READ_ONLY",
      "SOURCE_IO",
    ]);
    expect(errorOf("EROFS").message).toBe(
      "/c: cannot be written (EROFS); make the cache writable, or choose another with HF_HUB_CACHE",
    );
  });
});
