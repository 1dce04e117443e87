/** The built command with models of a hub on this machine: no GPU, no network. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { buildIfStale, type CommandOptions, command } from "../test/builtCommand.ts";
import { HubRepo, HubServer, rangeBegin } from "../test/hubServer.ts";
import { ROOT } from "../test/sourceFiles.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const FILE = "model.safetensors";
const MODEL = join(ROOT, "models/default");

const server = new HubServer();
let scratch = "";
let home = "";

const ingle = (words: readonly string[], { env = {}, ...more }: CommandOptions = {}) =>
  command(words, { cwd: scratch, env: { HF_HOME: home, HF_ENDPOINT: server.endpoint, HF_TOKEN: "", ...env }, ...more });
const folder = () => join(home, "hub/models--owner--name");
const snapshot = () => join(folder(), "snapshots", COMMIT);
const weights = () => readFileSync(join(MODEL, FILE));

beforeAll(async () => {
  buildIfStale();
  await server.start();
});
afterAll(() => server.stop());

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), "ingle-hub-cli-"));
  home = join(scratch, "home");
  server.seen = [];
  server.intercept = () => false;
  const names = readdirSync(MODEL).filter((name) => name !== "README.md");
  server.repos.set(
    "owner/name",
    new HubRepo(COMMIT, Object.fromEntries(names.map((name) => [name, readFileSync(join(MODEL, name))]))),
  );
  return () => rmSync(scratch, { recursive: true });
});

/** Sends a part of the weights and then nothing, until the request is given up; later requests are answered. */
function stallOnce(part: number, onSent: () => void): void {
  let stalled = false;
  server.intercept = (_request, response: ServerResponse, { place }) => {
    if (place !== "store" || stalled) return false;
    stalled = true;
    const bytes = weights();
    response
      .writeHead(200, { "content-length": bytes.length })
      .write(bytes.subarray(0, part), () => setTimeout(onSent, 300));
    return true;
  };
}

describe("a model of the hub", () => {
  test("is pulled, inspected by its id, listed, and removed", async () => {
    const pulled = await ingle(["pull", "owner/name"]);
    expect(pulled).toMatchObject({ code: 0, stdout: `${snapshot()}\n` });
    expect(pulled.stderr).toMatch(/^downloading owner\/name\ndownloaded in 1 s\n$/);
    const inspected = await ingle(["inspect", "owner/name", "--json"], { env: { HF_HUB_OFFLINE: "1" } });
    expect(JSON.parse(inspected.stdout)).toMatchObject({ model: "owner/name", architecture: "qwen3_moe" });
    const listed = await ingle(["ls"]);
    expect(listed.stdout).toMatch(/^id +revision +size +last used \(UTC\)\nowner\/name +main 0123456789ab +\d/);
    const rows = (await ingle(["ls", "--json"])).stdout;
    expect(JSON.parse(rows)).toMatchObject({
      id: "owner/name",
      commit: COMMIT,
      refs: ["main"],
      path: snapshot(),
      complete: true,
    });
    const asked = await ingle(["rm", "owner/name"]);
    expect([asked.code, existsSync(folder())]).toEqual([2, true]);
    expect(asked.stderr).toMatch(/^ingle: remove owner\/name, .*\? nobody is there to answer; give --yes\n$/);
    const removed = await ingle(["rm", "--yes", "owner/name"]);
    expect(removed.stdout).toMatch(/^owner\/name removed, .* freed\n$/);
    expect([removed.code, existsSync(folder())]).toEqual([0, false]);
  });

  test("is pulled in silence where stdout is JSON, and with --quiet", async () => {
    const { stdout, stderr } = await ingle(["pull", "owner/name@v1", "--json"]);
    expect(JSON.parse(stdout)).toEqual({ id: "owner/name", revision: "v1", commit: COMMIT, path: snapshot() });
    expect(stderr).toBe("");
    rmSync(folder(), { recursive: true });
    expect((await ingle(["pull", "owner/name", "--quiet"])).stderr).toBe("");
  });

  test("that is a folder here is that folder", async () => {
    mkdirSync(join(scratch, "owner/name"), { recursive: true });
    writeFileSync(join(scratch, "owner/name/config.json"), "{");
    const { code, stderr } = await ingle(["inspect", "owner/name"]);
    expect([code, server.seen]).toEqual([1, []]);
    expect(stderr).toContain("config.json");
  });

  test("that is not there is one line and exit code 1", async () => {
    const { code, stdout, stderr } = await ingle(["run", "-m", "owner/nmae", "hello"]);
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(
      /^ingle: owner\/nmae: is no folder here and no model at http.*; check the spelling, or set HF_TOKEN.*\n$/,
    );
  });

  test.each([["/etc"], ["../x/y"], ["a/../b"]])("%s is nothing that rm takes", async (path) => {
    const { code, stderr } = await ingle(["rm", "--yes", path]);
    expect(code).toBe(2);
    expect(stderr).toBe(`ingle: "${path}": is no id of a model, expected owner/name or owner/name@revision\n`);
  });
});

describe("a download", () => {
  test.each<["SIGINT" | "SIGKILL", number | null, string]>([
    ["SIGINT", 130, "downloading owner/name\nwhat has come is kept: the next run goes on from there\n"],
    ["SIGKILL", null, "downloading owner/name\n"],
  ])("ended by %s goes on in the next run", async (signal, exit, words) => {
    const part = 100_000;
    const onStart = (send: (signal: NodeJS.Signals) => void) => stallOnce(part, () => send(signal));
    const { code, stderr } = await ingle(["pull", "owner/name"], { onStart });
    expect([code, stderr]).toEqual([exit, words]);
    expect(existsSync(snapshot())).toBe(false);
    const next = await ingle(["pull", "owner/name"]);
    expect(next.code, next.stderr).toBe(0);
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([
      undefined,
      `bytes=${part}-${weights().length - 1}`,
    ]);
    expect(readFileSync(join(snapshot(), FILE)).equals(weights())).toBe(true);
    expect(readdirSync(join(folder(), "blobs")).filter((name) => name.endsWith(".incomplete"))).toEqual([]);
  });

  test("by two processes at once is one", async () => {
    server.intercept = (request, response, { place }) => {
      if (place !== "store") return false;
      expect(rangeBegin(request)).toBeUndefined();
      const bytes = weights();
      response.writeHead(200, { "content-length": bytes.length }).write(bytes.subarray(0, 1000));
      setTimeout(() => response.end(bytes.subarray(1000)), 1500); // long enough for the other one to come
      return true;
    };
    const both = await Promise.all([ingle(["pull", "owner/name"]), ingle(["pull", "owner/name"])]);
    expect(both.map(({ code, stdout }) => [code, stdout])).toEqual([1, 2].map(() => [0, `${snapshot()}\n`]));
    expect(server.fetches(FILE)).toHaveLength(1);
    expect(both.map(({ stderr }) => stderr).join("")).toContain(
      "owner/name: another process is downloading it; waiting",
    );
  });
});
