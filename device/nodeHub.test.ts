import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { HubRepo, HubServer, type Intercept, rangeBegin } from "../test/hubServer.ts";
import { SourceError } from "./errors.ts";
import { parseHubId } from "./hubId.ts";
import { type DownloadOptions, pullModel } from "./nodeHub.ts";
import { diskError } from "./nodeHubErrors.ts";
import { withLock } from "./nodeHubLock.ts";
import type { DownloadProgress } from "./nodeHubPull.ts";
import { cachedModels, planRemoval, remove } from "./nodeHubStock.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const OTHER = "fedcba9876543210fedcba9876543210fedcba98";
const WEIGHTS = new Uint8Array(3 * 2 ** 20 + 7).map((_, i) => Math.imul(i, 2654435761) >>> 13);
const PAGE = "<!DOCTYPE html>\n<html><head><title>log in</title></head></html>";
const FILE = "model.safetensors";

const server = new HubServer();
let cache = "";
let notes: string[] = [];
let slept: number[] = [];

const repoFolder = () => join(cache, "models--owner--name");
const snapshot = (commit = COMMIT) => join(repoFolder(), "snapshots", commit);
const blobs = () => readdirSync(join(repoFolder(), "blobs")).sort();
const repo = () => {
  const found = server.repos.get("owner/name");
  if (found === undefined) throw new Error("the test's repository is gone");
  return found;
};
const blob = (path = FILE) => join(repoFolder(), "blobs", repo().hash(path));

function pull(
  text = "owner/name",
  more: DownloadOptions & { offline?: boolean; token?: string; endpoint?: string } = {},
) {
  const id = parseHubId(text);
  if (id === undefined) throw new Error(`${text} is no id`);
  const { offline = false, token, endpoint = server.endpoint } = more;
  return pullModel(id, {
    settings: { endpoint, token, offline, cache },
    http: { sleep: async (milliseconds) => void slept.push(milliseconds) },
    onNote: (text) => notes.push(text),
    ...more,
  });
}

/** The error that `work` ends with, which must be a SourceError of this code. */
async function refused(work: Promise<unknown>, code: string): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SourceError);
  if (!(error instanceof SourceError)) throw new Error("nothing was thrown");
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  return error.message;
}

/** Answers requests for the weights' bytes as `answers` say, one after the other; then honestly. */
function weightsAnswer(...answers: ((...given: Parameters<Intercept>) => void)[]): void {
  let nth = 0;
  server.intercept = (request, response, seen) => {
    if (seen.place !== "store") return false;
    const answer = answers[nth++];
    answer?.(request, response, seen);
    return answer !== undefined;
  };
}

const breakOff = (at: number) => (_request: unknown, response: ServerResponse) => {
  response
    .writeHead(200, { "content-length": WEIGHTS.length })
    .write(WEIGHTS.subarray(0, at), () => response.destroy());
};

beforeAll(() => server.start());
afterAll(() => server.stop());

beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "ingle-hub-"));
  notes = [];
  slept = [];
  server.seen = [];
  server.intercept = () => false;
  server.repos.clear();
  server.repos.set(
    "owner/name",
    new HubRepo(COMMIT, {
      "config.json": '{"model_type":"llama"}',
      "tokenizer.json": "{}",
      "tokenizer_config.json": '{"a":1}',
      "README.md": "# a model",
      [FILE]: WEIGHTS,
      "pytorch_model.bin": "pickled",
      "model.Q4_K_M.gguf": "GGUF",
      "consolidated.safetensors": "again",
      "onnx/model.safetensors": "and again",
      "original/config.json": "{}",
    }),
  );
  return () => rmSync(cache, { recursive: true });
});

describe("a model of the hub", () => {
  test("comes into the cache as Python's tools lay it out, with the files that an engine reads", async () => {
    const { commit, path } = await pull();
    expect([commit, path]).toEqual([COMMIT, snapshot()]);
    expect(readdirSync(path).sort()).toEqual(["config.json", FILE, "tokenizer.json", "tokenizer_config.json"]);
    expect(blobs()).toEqual(
      ["config.json", FILE, "tokenizer.json", "tokenizer_config.json"].map((it) => repo().hash(it)).sort(),
    );
    expect(readlinkSync(join(path, FILE))).toBe(`../../blobs/${createHash("sha256").update(WEIGHTS).digest("hex")}`);
    expect(readFileSync(join(path, FILE)).equals(WEIGHTS)).toBe(true);
    expect(readFileSync(join(repoFolder(), "refs/main"), "utf8")).toBe(COMMIT);
    expect(readdirSync(join(cache, ".locks/models--owner--name"))).toEqual([]);
  });

  test("takes one request when it is there, and none by its commit", async () => {
    await pull();
    server.seen = [];
    await pull();
    expect(server.seen.map(({ path }) => path)).toEqual(["/api/models/owner/name/revision/main"]);
    server.seen = [];
    await pull(`owner/name@${COMMIT}`);
    expect(server.seen).toEqual([]);
  });

  test("is looked up again when its branch moved, and files that are the same are not fetched again", async () => {
    await pull();
    const next = new HubRepo(OTHER, { ...Object.fromEntries(repo().files), "tokenizer.json": '{"new":1}' });
    server.repos.set("owner/name", next);
    server.seen = [];
    expect((await pull()).commit).toBe(OTHER);
    expect(server.seen.filter(({ path }) => path.includes("/resolve/")).map(({ path }) => path)).toEqual([
      `/owner/name/resolve/${OTHER}/tokenizer.json`,
    ]);
    expect(readFileSync(join(repoFolder(), "refs/main"), "utf8")).toBe(OTHER);
    expect(existsSync(join(snapshot(), "config.json"))).toBe(true);
  });

  test("has the shards that its index names, and no stray weights", async () => {
    repo().files.set(
      "model.safetensors.index.json",
      new TextEncoder().encode(
        '{"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-1.safetensors","d":"../../evil.safetensors"}}',
      ),
    );
    repo().files.set("x-1.safetensors", WEIGHTS.subarray(0, 100));
    await expect(pull().then(({ path }) => path)).rejects.toThrow(
      "owner/name: model.safetensors.index.json names 1 files that are not in the repository: x-2.safetensors",
    );
    expect(existsSync(snapshot())).toBe(false);
    repo().files.set("x-2.safetensors", WEIGHTS.subarray(100, 300));
    const { path } = await pull();
    expect(
      readdirSync(path)
        .filter((file) => file.endsWith(".safetensors"))
        .sort(),
    ).toEqual(["x-1.safetensors", "x-2.safetensors"]);
  });

  test("that is none for ingle is refused before anything is fetched", async () => {
    server.repos.set(
      "owner/name",
      new HubRepo(COMMIT, { "config.json": "{}", "pytorch_model.bin": "x", "a.gguf": "y" }),
    );
    const message = await refused(pull(), "SOURCE_MISSING");
    expect(message).toContain(
      "owner/name: has no model.safetensors, it holds config.json, pytorch_model.bin, a.gguf; look for",
    );
    expect(server.seen).toHaveLength(1);
  });

  test("is asked for with the token, which no other origin sees", async () => {
    await pull("owner/name", { token: "secret" });
    const hub = server.seen.filter(({ place }) => place === "hub");
    const store = server.seen.filter(({ place }) => place === "store");
    expect(hub.length).toBeGreaterThan(5);
    expect(new Set(hub.map(({ authorization }) => authorization))).toEqual(new Set(["Bearer secret"]));
    expect(store.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("whose list goes on at another origin does not take the token there", async () => {
    server.intercept = (_request, response, { place, path }) => {
      if (place !== "hub" || !path.includes("/tree/")) return false;
      const link = `<${server.store}/api/models/owner/name/tree/${COMMIT}>; rel="next"`;
      return Boolean(response.writeHead(200, { "content-type": "application/json", link }).end("[]"));
    };
    await refused(pull("owner/name", { token: "secret" }), "SOURCE_(HTTP|MISSING|DENIED)");
    const store = server.seen.filter(({ place }) => place === "store");
    expect(store.map(({ authorization }) => authorization)).toEqual([undefined]);
  });

  test("tells how far it is: never more than all, and all at the end", async () => {
    const told: DownloadProgress[] = [];
    await pull("owner/name", { onProgress: (progress) => told.push(progress) });
    expect(told.every(({ loaded, total }) => loaded <= total)).toBe(true);
    expect(told.at(-1)).toEqual({ file: FILE, loaded: WEIGHTS.length, total: WEIGHTS.length });
  });

  test("downloaded by two at once is fetched once", async () => {
    const both = await Promise.all([pull(), pull()]);
    expect(both.map(({ commit }) => commit)).toEqual([COMMIT, COMMIT]);
    expect(server.fetches(FILE)).toHaveLength(1);
    expect(notes).toEqual(["owner/name: another process is downloading it; waiting"]);
  });
});

describe("a connection", () => {
  test("that breaks off is taken up at the byte where it broke, as often as it takes", async () => {
    const cuts = [1000, 70_000, 2 ** 20];
    weightsAnswer(
      breakOff(cuts[0] ?? 0),
      ...cuts.slice(1).map((cut) => (request: Parameters<Intercept>[0], response: ServerResponse) => {
        const begin = rangeBegin(request) ?? 0;
        const range = `bytes ${begin}-${WEIGHTS.length - 1}/${WEIGHTS.length}`;
        response
          .writeHead(206, { "content-length": WEIGHTS.length - begin, "content-range": range })
          .write(WEIGHTS.subarray(begin, cut), () => response.destroy());
      }),
    );
    await pull();
    const begins = server.fetches(FILE).map(({ range }) => Number(/^bytes=(\d+)-3145734$/.exec(range ?? "")?.[1] ?? 0));
    expect(begins).toHaveLength(4);
    // What was on its way when the connection broke is lost: a packet or two.
    for (const [i, cut] of cuts.entries()) {
      expect(begins[i + 1]).toBeLessThanOrEqual(cut);
      expect(begins[i + 1]).toBeGreaterThan(cut - 2 ** 18);
      expect(begins[i + 1]).toBeGreaterThan(begins[i] ?? Number.NaN);
    }
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that stays broken leaves what has come, and the next run goes on from there", async () => {
    server.intercept = (request, response, { place }) => {
      if (place !== "store") return false;
      if (rangeBegin(request) === undefined) breakOff(5000)(request, response);
      else response.destroy();
      return true;
    };
    const message = await refused(pull(), "SOURCE_NETWORK");
    expect(message).toContain("owner/name/model.safetensors: fetching failed 5 times");
    expect(statSync(`${blob()}.incomplete`).size).toBe(5000);
    expect(existsSync(snapshot())).toBe(false);
    server.intercept = () => false;
    server.seen = [];
    await pull();
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([`bytes=5000-${WEIGHTS.length - 1}`]);
    expect(blobs()).toHaveLength(4);
  });

  test("that is ended by a signal leaves what has come, and the signal's reason is thrown", async () => {
    const stop = new AbortController();
    const onProgress = ({ file, loaded }: DownloadProgress) => {
      if (file === FILE && loaded > 0) stop.abort(new Error("enough"));
    };
    weightsAnswer((_request, response) => void response.writeHead(200).write(WEIGHTS.subarray(0, 9000)));
    await expect(pull("owner/name", { signal: stop.signal, onProgress })).rejects.toThrow("enough");
    expect(statSync(`${blob()}.incomplete`).size).toBe(9000);
    expect(readdirSync(join(cache, ".locks/models--owner--name"))).toEqual([]);
    await pull();
    expect(server.fetches(FILE).at(-1)?.range).toBe(`bytes=9000-${WEIGHTS.length - 1}`);
  });
});

describe("a server", () => {
  const leave = (bytes: Uint8Array) => {
    mkdirSync(dirname(blob()), { recursive: true });
    writeFileSync(`${blob()}.incomplete`, bytes);
    utimesSync(`${blob()}.incomplete`, 1, 1);
  };

  test("that ignores ranges sends the whole file again", async () => {
    leave(WEIGHTS.subarray(0, 777));
    weightsAnswer(
      (_request, response) => void response.writeHead(200, { "content-length": WEIGHTS.length }).end(WEIGHTS),
    );
    await pull();
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([`bytes=777-${WEIGHTS.length - 1}`]);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["with another range than asked", { "content-range": `bytes 0-${WEIGHTS.length - 1}/${WEIGHTS.length}` }],
    ["of another size than listed", { "content-range": `bytes 777-${WEIGHTS.length}/${WEIGHTS.length + 1}` }],
    ["without saying which bytes", {}],
  ])("that answers %s is asked for the whole file", async (_title, headers: Record<string, string>) => {
    leave(WEIGHTS.subarray(0, 777));
    weightsAnswer((_request, response) => void response.writeHead(206, headers).end(WEIGHTS));
    await pull();
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([`bytes=777-${WEIGHTS.length - 1}`, undefined]);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["whose part begins at 0 and says otherwise", () => WEIGHTS.subarray(0, WEIGHTS.length - 777)],
    ["that sends zeros", () => new Uint8Array(WEIGHTS.length - 777)],
  ])("%s is found out by the hash, and the file fetched anew", async (_title, body) => {
    leave(WEIGHTS.subarray(0, 777));
    const range = `bytes 777-${WEIGHTS.length - 1}/${WEIGHTS.length}`;
    weightsAnswer((_request, response) => void response.writeHead(206, { "content-range": range }).end(body()));
    await pull();
    expect(server.fetches(FILE)).toHaveLength(2);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["longer than the file", new Uint8Array(WEIGHTS.length + 1)],
    ["as long as the file, with zeros at its end", WEIGHTS.slice().fill(0, 10_000)],
  ])("is asked anew where the part that is left is %s", async (_title, part) => {
    leave(part);
    await pull();
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([undefined]);
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that announces less than the file has is asked for the rest", async () => {
    weightsAnswer(
      (_request, response) => void response.writeHead(200, { "content-length": 4000 }).end(WEIGHTS.subarray(0, 4000)),
    );
    await pull();
    expect(server.fetches(FILE).map(({ range }) => range)).toEqual([undefined, `bytes=4000-${WEIGHTS.length - 1}`]);
  });

  test("that announces more than it sends is asked for the rest", async () => {
    weightsAnswer((_request, response) => {
      response
        .writeHead(200, { "content-length": WEIGHTS.length + 9 })
        .write(WEIGHTS.subarray(0, 4000), () => response.destroy());
    });
    await pull();
    expect(readFileSync(blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that sends more than is listed is refused, and nothing of it kept", async () => {
    repo().wrongSizes.set(FILE, 5000);
    const message = await refused(pull(), "SOURCE_RANGE");
    expect(message).toContain("owner/name/model.safetensors: more than the 5000 bytes came that the hub lists");
    expect(blobs()).not.toContain(`${repo().hash(FILE)}.incomplete`);
  });

  test.each(["config.json", FILE])(
    "that answers with a page for %s is refused at once, and nothing of it kept",
    async (path) => {
      server.intercept = (_request, response, seen) => {
        if (!seen.path.endsWith(`/${path}`) || (path === FILE && seen.place === "hub")) return false;
        response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
        return true;
      };
      expect(await refused(pull(), "SOURCE_HTML")).toMatch(
        new RegExp(`^owner/name/${path}: http://127.* answers with a web page`),
      );
      expect(existsSync(blob(path)) || existsSync(`${blob(path)}.incomplete`)).toBe(false);
      expect(existsSync(snapshot())).toBe(false);
    },
  );

  test("that answers with a page for its API is refused", async () => {
    server.intercept = (_request, response) => Boolean(response.writeHead(200).end(PAGE));
    expect(await refused(pull(), "SOURCE_HTML")).toContain("owner/name: http://127.0.0.1");
  });

  test.each([
    ["not JSON", "{"],
    ["of another kind", "[]"],
    ["without a commit", '{"siblings":[]}'],
  ])("whose API says what is %s is refused", async (_title, body) => {
    server.intercept = (_request, response) =>
      Boolean(response.writeHead(200, { "content-type": "application/json" }).end(body));
    expect(await refused(pull(), "SOURCE_HTTP")).toContain("owner/name: the hub's answer is not understood");
  });

  test.each(["config.json", FILE])(
    "that has other bytes of %s than it lists is asked twice, then refused",
    async (path) => {
      repo().wrongHashes.set(path, "ab".repeat(path === FILE ? 32 : 20));
      const message = await refused(pull(), "SOURCE_HASH");
      expect(message).toContain(`owner/name/${path}: has another hash than the hub lists`);
      expect(server.fetches(path)).toHaveLength(2);
      expect(existsSync(blob(path)) || existsSync(`${blob(path)}.incomplete`)).toBe(false);
      expect(existsSync(snapshot())).toBe(false);
    },
  );

  test("that lists a hash which is a path is refused", async () => {
    repo().wrongHashes.set(FILE, "../../../../evil");
    expect(await refused(pull(), "SOURCE_HASH")).toContain("the hub lists it with the hash");
  });

  test("that lists names outside of the folder is not followed", async () => {
    repo().files.set("../../evil.json", WEIGHTS);
    repo().files.set("tokenizer/../../../x", WEIGHTS);
    repo().files.set("tokenizer\\..\\..\\x", WEIGHTS);
    await pull();
    expect(readdirSync(snapshot()).sort()).toEqual(["config.json", FILE, "tokenizer.json", "tokenizer_config.json"]);
  });

  test.each<[string, number, Record<string, string>, string, string]>([
    ["no such model", 404, {}, "SOURCE_MISSING", "owner/name: is no folder here and no model at http"],
    [
      "no such model, without a token",
      401,
      { "x-error-code": "RepoNotFound" },
      "SOURCE_MISSING",
      "set HF_TOKEN to a token that may read it if it is private",
    ],
    [
      "no such revision",
      404,
      { "x-error-code": "RevisionNotFound" },
      "SOURCE_MISSING",
      'owner/name: has no revision "main"',
    ],
    [
      "a gated model",
      403,
      { "x-error-code": "GatedRepo" },
      "SOURCE_DENIED",
      "owner/name: is gated (HTTP 403); ask for access at http",
    ],
    ["a login", 401, {}, "SOURCE_DENIED", "owner/name: HTTP 401, the hub does not let strangers in; set HF_TOKEN"],
    ["no entry", 403, {}, "SOURCE_DENIED", "owner/name: HTTP 403"],
    ["something else", 418, {}, "SOURCE_HTTP", "owner/name: HTTP 418 from http"],
  ])("that wants %s is refused with what to do", async (_title, status, headers, code, words) => {
    server.intercept = (_request, response) => Boolean(response.writeHead(status, headers).end("{}"));
    expect(await refused(pull(), code)).toContain(words);
    expect(slept).toEqual([]);
  });

  test("that wants fewer requests is given the time it asks for, and refused in the end", async () => {
    let left = 2;
    server.intercept = (_request, response) =>
      left-- > 0 && Boolean(response.writeHead(429, { "retry-after": "7" }).end());
    await pull();
    expect(slept).toEqual([7000, 7000]);
    rmSync(repoFolder(), { recursive: true });
    server.intercept = (_request, response) => Boolean(response.writeHead(429).end());
    expect(await refused(pull(), "SOURCE_RATE_LIMIT")).toContain(
      "owner/name: HTTP 429 5 times, the server wants fewer requests",
    );
  });
});

describe("a cache", () => {
  test("serves without a single request when offline", async () => {
    await pull();
    server.seen = [];
    expect((await pull("owner/name", { offline: true })).path).toBe(snapshot());
    expect(server.seen).toEqual([]);
  });

  test.each([
    ["config.json", "owner/name: is not whole in the cache"],
    [FILE, `: ${FILE} missing, and HF_HUB_OFFLINE is set; unset it and pull once`],
  ])("that lacks %s is not used offline", async (path, words) => {
    await pull();
    rmSync(join(snapshot(), path));
    expect(await refused(pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(words);
  });

  test("without the model, or without that revision, says so offline", async () => {
    expect(await refused(pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name: is not in the cache",
    );
    await pull();
    expect(await refused(pull("owner/name@v1", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name@v1: is not",
    );
  });

  test("serves where the hub cannot be reached, and says so", async () => {
    await pull();
    const gone = "http://127.0.0.1:9"; // the port of discard, which nobody has
    expect((await pull("owner/name", { endpoint: gone })).path).toBe(snapshot());
    expect(notes.join()).toMatch(/^owner\/name: fetching failed 2 times.*; using 0123456789ab from the cache$/);
    expect(slept).toHaveLength(1);
  });

  test("that Python's tools filled is used, what it lacks is fetched, and nothing else", async () => {
    mkdirSync(join(repoFolder(), "blobs"), { recursive: true });
    mkdirSync(snapshot(), { recursive: true });
    writeFileSync(blob(), WEIGHTS);
    symlinkSync(`../../blobs/${repo().hash(FILE)}`, join(snapshot(), FILE));
    await pull();
    expect(server.fetches(FILE)).toEqual([]);
    expect(server.fetches("config.json")).toHaveLength(1);
  });

  test("that cannot take the last of the links is not used as if it had", async () => {
    mkdirSync(join(snapshot(), "tokenizer_config.json/in the way"), { recursive: true });
    expect(await refused(pull(), "SOURCE_IO")).toContain("tokenizer_config.json: cannot be written");
    expect(readdirSync(snapshot()).sort()).toEqual([FILE, "tokenizer.json", "tokenizer_config.json"]);
    expect(await refused(pull("owner/name", { offline: true }), "SOURCE_OFFLINE")).toContain(
      "owner/name: is not in the cache",
    );
    expect(await refused(pull(`owner/name@${COMMIT}`, { offline: true }), "SOURCE_OFFLINE")).toContain(
      ": config.json missing",
    );
  });

  test("with a cut blob gets it whole", async () => {
    await pull();
    writeFileSync(blob(), WEIGHTS.subarray(0, 10));
    rmSync(join(snapshot(), "config.json"));
    await pull();
    expect(readFileSync(join(snapshot(), FILE)).equals(WEIGHTS)).toBe(true);
  });

  test("too small for the model is refused before anything large is fetched", async () => {
    repo().wrongSizes.set(FILE, 2 ** 60);
    expect(await refused(pull(), "SOURCE_DISK_FULL")).toContain("owner/name: 1099511627776 MiB are to come");
    expect(server.fetches(FILE)).toEqual([]);
  });

  test("that cannot be made is an error with a way out", async () => {
    const file = join(cache, "file");
    writeFileSync(file, "");
    const settings = { endpoint: server.endpoint, token: undefined, offline: false, cache: file };
    expect(await refused(pull("owner/name", { settings }), "SOURCE_IO")).toContain("HF_HUB_CACHE");
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

describe("the lock", () => {
  const path = () => join(cache, ".locks/x/ingle.lock");
  const left = (text: string) => {
    mkdirSync(dirname(path()), { recursive: true });
    writeFileSync(path(), text);
  };

  test("of a process that is gone is taken at once", async () => {
    await withLock(path(), {}, async () => {
      const own = JSON.parse(readFileSync(path(), "utf8"));
      left(JSON.stringify({ ...own, pid: 2 ** 22 + 1 })); // above the largest that Linux gives
    });
    expect(existsSync(path())).toBe(true);
    expect(await withLock(path(), {}, async () => "done")).toBe("done");
    expect(existsSync(path())).toBe(false);
  });

  test("of another machine is taken when it has given no sign for a minute, and waited for before", async () => {
    left('{"pid":1,"host":"elsewhere"}');
    const onWait = () => {
      throw new Error("waits");
    };
    await expect(withLock(path(), { onWait }, async () => "done")).rejects.toThrow("waits");
    utimesSync(path(), Date.now() / 1000 - 61, Date.now() / 1000 - 61);
    expect(await withLock(path(), { onWait }, async () => "done")).toBe("done");
  });

  test("is held by one at a time, and given back where the work fails", async () => {
    let inside = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 20));
      inside--;
    };
    await Promise.all([1, 2, 3].map(() => withLock(path(), {}, work)));
    expect(most).toBe(1);
    await expect(withLock(path(), {}, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(existsSync(path())).toBe(false);
  });
});

describe("what is in the cache", () => {
  const both = async () => {
    await pull();
    server.repos.set(
      "owner/name",
      new HubRepo(OTHER, { ...Object.fromEntries(repo().files), "tokenizer.json": '{"new":1}' }),
    );
    await pull();
  };

  test("is listed with its revisions, sizes and what was broken off", async () => {
    expect(await cachedModels(join(cache, "none"))).toEqual([]);
    await both();
    rmSync(join(snapshot(), "config.json"));
    writeFileSync(`${blob()}.incomplete`, "1234");
    mkdirSync(join(cache, "datasets--a--b/snapshots"), { recursive: true });
    const [model, ...more] = await cachedModels(cache);
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
    const plan = await planRemoval(cache, "owner/name", COMMIT.slice(0, 7));
    expect(plan.bytes).toBe(2); // the old tokenizer.json
    await remove(plan);
    expect(readdirSync(join(repoFolder(), "snapshots"))).toEqual([OTHER]);
    expect(readFileSync(join(snapshot(OTHER), FILE)).equals(WEIGHTS)).toBe(true);
    expect(blobs()).toHaveLength(4);
    await remove(await planRemoval(cache, "owner/name", "main"));
    expect(existsSync(repoFolder())).toBe(false);
  });

  test("goes as a whole, with what was broken off", async () => {
    await both();
    writeFileSync(`${blob()}.incomplete`, "1234");
    await remove(await planRemoval(cache, "owner/name", undefined));
    expect(readdirSync(cache)).toEqual([".locks"]);
  });

  test("is refused where it is not there, leads out of the cache, or is being downloaded", async () => {
    expect(await refused(planRemoval(cache, "owner/name", undefined), "SOURCE_MISSING")).toContain(
      "`ingle ls` lists what is",
    );
    await pull();
    expect(await refused(planRemoval(cache, "owner/name", "v9"), "SOURCE_MISSING")).toContain(
      "owner/name@v9: is not in the cache; there are main = 0123456789ab",
    );
    const outside = mkdtempSync(join(tmpdir(), "ingle-outside-"));
    writeFileSync(join(outside, "precious"), "");
    symlinkSync(outside, join(cache, "models--a--b"));
    expect(await refused(planRemoval(cache, "a/b", undefined), "SOURCE_NAME")).toContain("leads out of it");
    expect(lstatSync(join(outside, "precious")).isFile()).toBe(true);
    rmSync(outside, { recursive: true });
    const plan = await planRemoval(cache, "owner/name", undefined);
    await withLock(plan.repo.lock, {}, async () => {
      expect(await refused(remove(plan), "SOURCE_BUSY")).toContain("owner/name: another process is downloading it");
    });
    expect(existsSync(join(snapshot(), FILE))).toBe(true);
  });
});

describe("an id", () => {
  test.each([
    ["owner/name", { name: "owner/name", revision: "main" }],
    ["HuggingFaceTB/SmolLM2-135M_x.1@v1.0", { name: "HuggingFaceTB/SmolLM2-135M_x.1", revision: "v1.0" }],
    ["a/b@refs/pr/1", { name: "a/b", revision: "refs/pr/1" }],
  ])("%s is one", (text, id) => expect(parseHubId(text)).toEqual(id));

  test.each([
    "name",
    "./a",
    "../a",
    "a/b/c",
    "/a/b",
    "a/b@",
    "a/b@../x",
    "a/b@x@y",
    "a/b c",
    "a--b/c",
    "a/..",
    "-a/b",
    "a/b.",
    "~/a",
    "C:/a",
    "a\\b/c",
    "",
  ])("%j is none", (text) => expect(parseHubId(text)).toBeUndefined());
});
