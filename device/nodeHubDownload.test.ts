/** Files of the hub over connections that break and from servers that answer otherwise than they should: whole, or an error and nothing half there. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { FILE, HubScene, refused, WEIGHTS } from "../test/hubScene.ts";
import { type Intercept, rangeBegin } from "../test/hubServer.ts";
import type { DownloadProgress } from "./nodeHubPull.ts";

const scene = new HubScene();
beforeAll(scene.start);
afterAll(scene.stop);
beforeEach(scene.reset);

const PAGE = "<!DOCTYPE html>\n<html><head><title>log in</title></head></html>";

/** Answers requests for the weights' bytes as `answers` say, one after the other; then honestly. */
function weightsAnswer(...answers: ((...given: Parameters<Intercept>) => void)[]): void {
  let nth = 0;
  scene.server.intercept = (request, response, seen) => {
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
    await scene.pull();
    const begins = scene.server
      .fetches(FILE)
      .map(({ range }) => Number(/^bytes=(\d+)-3145734$/.exec(range ?? "")?.[1] ?? 0));
    expect(begins).toHaveLength(4);
    // What was on its way when the connection broke is lost: a packet or two.
    for (const [i, cut] of cuts.entries()) {
      expect(begins[i + 1]).toBeLessThanOrEqual(cut);
      expect(begins[i + 1]).toBeGreaterThan(cut - 2 ** 18);
      expect(begins[i + 1]).toBeGreaterThan(begins[i] ?? Number.NaN);
    }
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that stays broken leaves what has come, and the next run goes on from there", async () => {
    scene.server.intercept = (request, response, { place }) => {
      if (place !== "store") return false;
      if (rangeBegin(request) === undefined) breakOff(5000)(request, response);
      else response.destroy();
      return true;
    };
    const message = await refused(scene.pull(), "SOURCE_NETWORK");
    expect(message).toContain("owner/name/model.safetensors: fetching failed 5 times");
    expect(statSync(`${scene.blob()}.incomplete`).size).toBe(5000);
    expect(existsSync(scene.snapshot())).toBe(false);
    scene.server.intercept = () => false;
    scene.server.seen = [];
    await scene.pull();
    expect(scene.server.fetches(FILE).map(({ range }) => range)).toEqual([`bytes=5000-${WEIGHTS.length - 1}`]);
    expect(scene.blobs()).toHaveLength(4);
  });

  test("that is ended by a signal leaves what has come, and the signal's reason is thrown", async () => {
    const stop = new AbortController();
    const onProgress = ({ file, loaded }: DownloadProgress) => {
      if (file === FILE && loaded > 0) stop.abort(new Error("enough"));
    };
    weightsAnswer((_request, response) => void response.writeHead(200).write(WEIGHTS.subarray(0, 9000)));
    await expect(scene.pull("owner/name", { signal: stop.signal, onProgress })).rejects.toThrow("enough");
    expect(statSync(`${scene.blob()}.incomplete`).size).toBe(9000);
    expect(readdirSync(join(scene.cache, ".locks/models--owner--name"))).toEqual([]);
    await scene.pull();
    expect(scene.server.fetches(FILE).at(-1)?.range).toBe(`bytes=9000-${WEIGHTS.length - 1}`);
  });
});

describe("a server", () => {
  const leave = (bytes: Uint8Array) => {
    mkdirSync(dirname(scene.blob()), { recursive: true });
    writeFileSync(`${scene.blob()}.incomplete`, bytes);
    utimesSync(`${scene.blob()}.incomplete`, 1, 1);
  };

  test("that ignores ranges sends the whole file again", async () => {
    leave(WEIGHTS.subarray(0, 777));
    weightsAnswer(
      (_request, response) => void response.writeHead(200, { "content-length": WEIGHTS.length }).end(WEIGHTS),
    );
    await scene.pull();
    expect(scene.server.fetches(FILE).map(({ range }) => range)).toEqual([`bytes=777-${WEIGHTS.length - 1}`]);
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["with another range than asked", { "content-range": `bytes 0-${WEIGHTS.length - 1}/${WEIGHTS.length}` }],
    ["of another size than listed", { "content-range": `bytes 777-${WEIGHTS.length}/${WEIGHTS.length + 1}` }],
    ["without saying which bytes", {}],
  ])("that answers %s is asked for the whole file", async (_title, headers: Record<string, string>) => {
    leave(WEIGHTS.subarray(0, 777));
    weightsAnswer((_request, response) => void response.writeHead(206, headers).end(WEIGHTS));
    await scene.pull();
    expect(scene.server.fetches(FILE).map(({ range }) => range)).toEqual([
      `bytes=777-${WEIGHTS.length - 1}`,
      undefined,
    ]);
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["whose part begins at 0 and says otherwise", () => WEIGHTS.subarray(0, WEIGHTS.length - 777)],
    ["that sends zeros", () => new Uint8Array(WEIGHTS.length - 777)],
  ])("%s is found out by the hash, and the file fetched anew", async (_title, body) => {
    leave(WEIGHTS.subarray(0, 777));
    const range = `bytes 777-${WEIGHTS.length - 1}/${WEIGHTS.length}`;
    weightsAnswer((_request, response) => void response.writeHead(206, { "content-range": range }).end(body()));
    await scene.pull();
    expect(scene.server.fetches(FILE)).toHaveLength(2);
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test.each([
    ["longer than the file", new Uint8Array(WEIGHTS.length + 1)],
    ["as long as the file, with zeros at its end", WEIGHTS.slice().fill(0, 10_000)],
  ])("is asked anew where the part that is left is %s", async (_title, part) => {
    leave(part);
    await scene.pull();
    expect(scene.server.fetches(FILE).map(({ range }) => range)).toEqual([undefined]);
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that announces less than the file has is asked for the rest", async () => {
    weightsAnswer(
      (_request, response) => void response.writeHead(200, { "content-length": 4000 }).end(WEIGHTS.subarray(0, 4000)),
    );
    await scene.pull();
    expect(scene.server.fetches(FILE).map(({ range }) => range)).toEqual([
      undefined,
      `bytes=4000-${WEIGHTS.length - 1}`,
    ]);
  });

  test("that announces more than it sends is asked for the rest", async () => {
    weightsAnswer((_request, response) => {
      response
        .writeHead(200, { "content-length": WEIGHTS.length + 9 })
        .write(WEIGHTS.subarray(0, 4000), () => response.destroy());
    });
    await scene.pull();
    expect(readFileSync(scene.blob()).equals(WEIGHTS)).toBe(true);
  });

  test("that sends more than is listed is refused, and nothing of it kept", async () => {
    scene.repo.wrongSizes.set(FILE, 5000);
    const message = await refused(scene.pull(), "SOURCE_RANGE");
    expect(message).toContain("owner/name/model.safetensors: more than the 5000 bytes came that the hub lists");
    expect(scene.blobs()).not.toContain(`${scene.repo.hash(FILE)}.incomplete`);
  });

  test.each(["config.json", FILE])(
    "that answers with a page for %s is refused at once, and nothing of it kept",
    async (path) => {
      scene.server.intercept = (_request, response, seen) => {
        if (!seen.path.endsWith(`/${path}`) || (path === FILE && seen.place === "hub")) return false;
        response.writeHead(200, { "content-type": "text/html" }).end(PAGE);
        return true;
      };
      expect(await refused(scene.pull(), "SOURCE_HTML")).toMatch(
        new RegExp(`^owner/name/${path}: http://127.* answers with a web page`),
      );
      expect(existsSync(scene.blob(path)) || existsSync(`${scene.blob(path)}.incomplete`)).toBe(false);
      expect(existsSync(scene.snapshot())).toBe(false);
    },
  );

  test("that answers with a page for its API is refused", async () => {
    scene.server.intercept = (_request, response) => Boolean(response.writeHead(200).end(PAGE));
    expect(await refused(scene.pull(), "SOURCE_HTML")).toContain("owner/name: http://127.0.0.1");
  });

  test.each([
    ["not JSON", "{"],
    ["of another kind", "[]"],
    ["without a commit", '{"siblings":[]}'],
  ])("whose API says what is %s is refused", async (_title, body) => {
    scene.server.intercept = (_request, response) =>
      Boolean(response.writeHead(200, { "content-type": "application/json" }).end(body));
    expect(await refused(scene.pull(), "SOURCE_HTTP")).toContain("owner/name: the hub's answer is not understood");
  });

  test.each(["config.json", FILE])(
    "that has other bytes of %s than it lists is asked twice, then refused",
    async (path) => {
      scene.repo.wrongHashes.set(path, "ab".repeat(path === FILE ? 32 : 20));
      const message = await refused(scene.pull(), "SOURCE_HASH");
      expect(message).toContain(`owner/name/${path}: has another hash than the hub lists`);
      expect(scene.server.fetches(path)).toHaveLength(2);
      expect(existsSync(scene.blob(path)) || existsSync(`${scene.blob(path)}.incomplete`)).toBe(false);
      expect(existsSync(scene.snapshot())).toBe(false);
    },
  );

  test("that lists a hash which is a path is refused", async () => {
    scene.repo.wrongHashes.set(FILE, "../../../../evil");
    expect(await refused(scene.pull(), "SOURCE_HASH")).toContain("the hub lists it with the hash");
  });

  test("that lists names outside of the folder is not followed", async () => {
    scene.repo.files.set("../../evil.json", WEIGHTS);
    scene.repo.files.set("tokenizer/../../../x", WEIGHTS);
    scene.repo.files.set("tokenizer\\..\\..\\x", WEIGHTS);
    await scene.pull();
    expect(readdirSync(scene.snapshot()).sort()).toEqual([
      "config.json",
      FILE,
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
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
    scene.server.intercept = (_request, response) => Boolean(response.writeHead(status, headers).end("{}"));
    expect(await refused(scene.pull(), code)).toContain(words);
    expect(scene.slept).toEqual([]);
  });

  test("that wants fewer requests is given the time it asks for, and refused in the end", async () => {
    let left = 2;
    scene.server.intercept = (_request, response) =>
      left-- > 0 && Boolean(response.writeHead(429, { "retry-after": "7" }).end());
    await scene.pull();
    expect(scene.slept).toEqual([7000, 7000]);
    rmSync(scene.folder, { recursive: true });
    scene.server.intercept = (_request, response) => Boolean(response.writeHead(429).end());
    expect(await refused(scene.pull(), "SOURCE_RATE_LIMIT")).toContain(
      "owner/name: HTTP 429 5 times, the server wants fewer requests",
    );
  });
});
