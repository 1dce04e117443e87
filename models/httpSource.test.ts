import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SourceError } from "../device/errors.ts";
import type { ByteSource } from "../device/files.ts";
import type { HttpOptions } from "../device/httpRequest.ts";
import { ModelFormatError } from "./errors.ts";
import { httpFolder, httpSource } from "./httpSource.ts";
import { openCheckpoint } from "./weights/checkpoint.ts";
import { readHeader } from "./weights/safetensors.ts";

const MALFORMED = join(import.meta.dirname, "../test/fixtures/malformed");
const verdicts: Record<string, string> = JSON.parse(readFileSync(join(MALFORMED, "verdicts.json"), "utf8"));

// 20 MiB + 5, so that a read takes three requests, of bytes that differ everywhere.
const FILE = new Uint8Array(20 * 2 ** 20 + 5);
for (let i = 0; i < FILE.length; i++) FILE[i] = Math.imul(i, 2654435761) >>> 13;
const PAGE = "<!DOCTYPE html>\n<html><head><title>app</title></head></html>";
const sha = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

type Handler = (request: IncomingMessage, response: ServerResponse, nth: number) => void;

let server: Server;
let origin = "";
let handler: Handler = () => {};
let requests: { path: string; range: string | undefined }[] = [];
let slept: number[] = [];

const options = (more: Partial<HttpOptions> = {}): HttpOptions => ({
  fetch,
  sleep: async (milliseconds) => void slept.push(milliseconds),
  ...more,
});

beforeAll(async () => {
  server = createServer((request, response) => {
    requests.push({ path: request.url ?? "", range: request.headers.range });
    handler(request, response, requests.length);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  requests = [];
  slept = [];
});

function rangeOf(request: IncomingMessage, size: number): { begin: number; end: number } | undefined {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
  return match === null ? undefined : { begin: Number(match[1]), end: Math.min(Number(match[2]) + 1, size) };
}

// An honest server of one file.
function serve(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Uint8Array,
  headers: Record<string, string> = {},
): void {
  const range = rangeOf(request, bytes.length);
  if (range === undefined) {
    response.writeHead(200, { "content-length": bytes.length, ...headers }).end(bytes);
  } else if (range.begin >= bytes.length) {
    response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
  } else {
    const body = bytes.subarray(range.begin, range.end);
    const contentRange = `bytes ${range.begin}-${range.end - 1}/${bytes.length}`;
    response.writeHead(206, { "content-length": body.length, "content-range": contentRange, ...headers }).end(body);
  }
}

const honest: Handler = (request, response) => serve(request, response, FILE);
const whole: Handler = (_request, response) =>
  void response.writeHead(200, { "content-length": FILE.length }).end(FILE);
const opened = async (more?: Partial<HttpOptions>): Promise<ByteSource> =>
  await httpSource(`${origin}/model.safetensors`, options(more));
const failure = async (promise: Promise<unknown>): Promise<unknown> =>
  await promise.then(
    () => undefined,
    (error: unknown) => error,
  );

describe("an honest server", () => {
  test("is asked for ranges of at most 8 MiB, and small files in one request", async () => {
    handler = honest;
    const source = await opened();
    expect(source).toMatchObject({ size: FILE.length, name: `${origin}/model.safetensors` });
    expect(Buffer.compare(await source.read(10, 60_000), FILE.subarray(10, 60_000))).toBe(0);
    expect(requests).toEqual([{ path: "/model.safetensors", range: "bytes=0-65535" }]);
    expect(sha(await source.read(0, FILE.length))).toBe(sha(FILE));
    expect(requests.slice(1).map(({ range }) => range)).toEqual([
      "bytes=0-8388607",
      "bytes=8388608-16777215",
      "bytes=16777216-20971524",
    ]);
    await source.close();
    await expect(source.read(0, 1)).rejects.toMatchObject({ code: "SOURCE_CLOSED" });
  });

  test("may have an empty file", async () => {
    handler = (request, response) => serve(request, response, new Uint8Array(0));
    expect((await opened()).size).toBe(0);
  });

  test("may send a small file compressed", async () => {
    const json = Buffer.from(JSON.stringify({ hidden_size: 64, pad: "x".repeat(5000) }));
    handler = (_request, response) => {
      const body = gzipSync(json);
      response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
    };
    const source = await opened();
    expect(Buffer.compare(await source.read(0, source.size), json)).toBe(0);
  });

  test("gets the caller's headers", async () => {
    let seen: string | undefined;
    handler = (request, response) => {
      seen = request.headers.authorization;
      honest(request, response, 1);
    };
    await opened({ headers: { authorization: "Bearer t" } });
    expect(seen).toBe("Bearer t");
  });

  test.each(Object.entries(verdicts))("sends %s: %s", async (name, expected) => {
    const bytes = readFileSync(join(MALFORMED, `${name}.safetensors`));
    handler = (request, response) => serve(request, response, bytes);
    const error = await failure(opened().then((source) => readHeader(source)));
    if (error !== undefined && !(error instanceof ModelFormatError) && !(error instanceof SourceError)) throw error;
    if (expected !== "either") expect(error === undefined ? "accept" : "refuse").toBe(expected);
  });
});

describe("a server without ranges", () => {
  test("is read whole, once", async () => {
    handler = whole;
    const source = await opened();
    expect(sha(await source.read(0, FILE.length))).toBe(sha(FILE));
    expect((await source.read(5, 9)).length).toBe(4);
    expect(requests).toHaveLength(1);
  });

  test("that stops answering ranges half-way is read whole, once, by all readers", async () => {
    handler = (request, response, nth) => (nth === 1 ? honest : whole)(request, response, nth);
    const source = await opened();
    const reads = await Promise.all([source.read(1_000_000, 1_000_100), source.read(FILE.length - 5, FILE.length)]);
    expect(reads.map(({ length }) => length)).toEqual([100, 5]);
    expect(Buffer.compare(reads[1] ?? new Uint8Array(0), FILE.subarray(-5))).toBe(0);
    const before = requests.length;
    expect(requests.filter(({ range }) => range === undefined)).toHaveLength(1);
    await source.read(2_000_000, 3_000_000);
    expect(requests).toHaveLength(before);
  });

  test("is refused above the limit, with both sizes, before the body is read", async () => {
    handler = whole;
    await expect(opened({ wholeLimit: 2 ** 20 })).rejects.toMatchObject({
      code: "SOURCE_TOO_LARGE",
      message: expect.stringMatching(/20 MiB or more, 1 MiB are read whole at most/),
    });
  });

  test("and without a length is refused above the limit too", async () => {
    handler = (_request, response) => {
      response.writeHead(200);
      for (let i = 0; i < 40; i++) response.write(FILE.subarray(0, 65536));
      response.end();
    };
    await expect(opened({ wholeLimit: 2 ** 20 })).rejects.toMatchObject({ code: "SOURCE_TOO_LARGE" });
  });

  test("that hides Content-Range, or compresses ranges, is not trusted with them", async () => {
    for (const headers of [
      {},
      { "content-range": "bytes 0-65535/*" },
      { "content-range": `bytes 0-65535/${FILE.length}`, "content-encoding": "gzip" },
    ]) {
      requests = [];
      handler = (request, response, nth) => {
        if (request.headers.range === undefined) return whole(request, response, nth);
        response
          .writeHead(206, { ...headers })
          .end("content-encoding" in headers ? gzipSync(FILE.subarray(0, 65536)) : FILE.subarray(0, 65536));
      };
      expect(sha(await (await opened()).read(0, FILE.length))).toBe(sha(FILE));
      expect(requests.map(({ range }) => range)).toEqual(["bytes=0-65535", undefined]);
    }
  });

  test("that refuses any request with a range gets one without", async () => {
    handler = (request, response, nth) => {
      if (request.headers.range === undefined) whole(request, response, nth);
      else response.destroy();
    };
    expect((await opened()).size).toBe(FILE.length);
  });
});

describe("a hostile server", () => {
  test("drops the connection at 50 places: the file arrives, and each drop costs one piece", async () => {
    for (let i = 0; i < 50; i++) {
      const cutAt = (i * 7919 * 53) % (8 * 2 ** 20);
      requests = [];
      handler = (request, response, nth) => {
        if (nth !== 2) return honest(request, response, nth);
        const { begin, end } = rangeOf(request, FILE.length) ?? { begin: 0, end: 0 };
        response.writeHead(206, {
          "content-length": end - begin,
          "content-range": `bytes ${begin}-${end - 1}/${FILE.length}`,
        });
        response.write(FILE.subarray(begin, begin + cutAt), () => response.destroy());
      };
      const source = await opened();
      const from = 5 * 2 ** 20;
      const read = await source.read(from, from + 8 * 2 ** 20);
      expect(Buffer.compare(read, FILE.subarray(from, from + 8 * 2 ** 20))).toBe(0);
      expect(requests).toHaveLength(3);
    }
  });

  test("drops the connection for ever: an error after five attempts, each later than the one before", async () => {
    handler = (request, response, nth) => (nth === 1 ? honest(request, response, nth) : void response.destroy());
    const source = await opened();
    await expect(source.read(100_000, 200_000)).rejects.toMatchObject({
      code: "SOURCE_NETWORK",
      message: expect.stringContaining("failed 5 times"),
    });
    expect(slept).toEqual([500, 1000, 2000, 4000]);
  });

  test("drops the connection of a whole file: it is asked for again, no part is taken for it", async () => {
    handler = (_request, response, nth) => {
      if (nth !== 1) return whole(_request, response, nth);
      response.writeHead(200, { "content-length": FILE.length });
      response.write(FILE.subarray(0, 3_000_000), () => response.destroy());
    };
    const source = await opened();
    expect(sha(await source.read(0, source.size))).toBe(sha(FILE));
    expect(requests).toHaveLength(2);
  });

  test.each([
    ["from 0", (_begin: number, end: number, begin = _begin) => [0, end - begin - 1, FILE.length]],
    ["one later", (begin: number, end: number) => [begin + 1, end, FILE.length]],
    ["one shorter", (begin: number, end: number) => [begin, end - 2, FILE.length]],
  ] as const)("answers with a range %s: an error, not those bytes", async (_how, range) => {
    handler = (request, response, nth) => {
      if (nth === 1) return honest(request, response, nth);
      const asked = rangeOf(request, FILE.length) ?? { begin: 0, end: 0 };
      const [first = 0, last = 0, size] = range(asked.begin, asked.end);
      response
        .writeHead(206, { "content-range": `bytes ${first}-${last}/${size}` })
        .end(FILE.subarray(first, last + 1));
    };
    await expect((await opened()).read(100_000, 200_000)).rejects.toMatchObject({
      code: "SOURCE_RANGE",
      message: expect.stringContaining("100000 to 200000 were asked for"),
    });
  });

  test("answers the first request with another range: an error", async () => {
    handler = (_request, response) =>
      void response.writeHead(206, { "content-range": `bytes 5-9/${FILE.length}` }).end("12345");
    await expect(opened()).rejects.toMatchObject({ code: "SOURCE_RANGE" });
  });

  test("sends more than its range: an error; less: asked again", async () => {
    let extra = 10;
    handler = (request, response, nth) => {
      if (nth === 1 || nth > 3) return honest(request, response, nth);
      const { begin, end } = rangeOf(request, FILE.length) ?? { begin: 0, end: 0 };
      response
        .writeHead(206, { "content-range": `bytes ${begin}-${end - 1}/${FILE.length}` })
        .end(FILE.subarray(begin, end + extra));
    };
    await expect((await opened()).read(100_000, 200_000)).rejects.toMatchObject({
      code: "SOURCE_RANGE",
      message: expect.stringContaining("more than the 100000 bytes"),
    });
    extra = -10;
    requests = [];
    expect(Buffer.compare(await (await opened()).read(100_000, 200_000), FILE.subarray(100_000, 200_000))).toBe(0);
    expect(slept).toEqual([500, 1000]);
  });

  test("lies about the length: too long is asked again and given up, too short ends in the header's check", async () => {
    handler = (_request, response) => {
      response.writeHead(200, { "content-length": 1000 });
      response.write("x".repeat(900), () => response.destroy());
    };
    await expect(opened()).rejects.toMatchObject({ code: "SOURCE_NETWORK" });
    const valid = readFileSync(join(MALFORMED, "valid.safetensors"));
    handler = (_request, response) =>
      void response.writeHead(200, { "content-length": valid.length - 50 }).end(valid.subarray(0, -50));
    await expect(readHeader(await opened())).rejects.toMatchObject({ code: "INCOMPLETE" });
  });

  test("has the file changed half-way: ETag, date or size", async () => {
    const versions: [Record<string, string>, Record<string, string>, Uint8Array][] = [
      [{ etag: '"1"' }, { etag: '"2"' }, FILE],
      [
        { "last-modified": "Mon, 01 Jan 2024 00:00:00 GMT" },
        { "last-modified": "Tue, 02 Jan 2024 00:00:00 GMT" },
        FILE,
      ],
      [{}, {}, FILE.subarray(0, -1)],
    ];
    for (const [before, after, bytes] of versions) {
      requests = [];
      handler = (request, response, nth) =>
        nth === 1 ? serve(request, response, FILE, before) : serve(request, response, bytes, after);
      await expect((await opened()).read(100_000, 200_000)).rejects.toMatchObject({
        code: "SOURCE_CHANGED",
        message: expect.stringContaining("changed while it was read"),
      });
    }
  });

  test("has the file changed before it falls back to the whole: an error", async () => {
    handler = (request, response, nth) =>
      nth === 1 ? honest(request, response, nth) : void response.writeHead(200).end(FILE.subarray(0, 1000));
    await expect((await opened()).read(100_000, 200_000)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });

  test("loses the file half-way: an error", async () => {
    handler = (request, response, nth) =>
      nth === 1 ? honest(request, response, nth) : void response.writeHead(404).end();
    await expect((await opened()).read(100_000, 200_000)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });

  test("marks the tag of a compressed answer: the file is the same", async () => {
    handler = (request, response, nth) =>
      serve(request, response, FILE, { etag: nth === 1 ? '"abc"' : 'W/"abc-gzip"' });
    expect((await (await opened()).read(100_000, 200_000)).length).toBe(100_000);
  });

  test("says later, for how long: that long is waited, up to a minute", async () => {
    handler = (request, response, nth) => {
      const later = ["7", new Date(Date.now() + 3_600_000).toUTCString(), "nonsense"][nth - 1];
      if (later === undefined) return honest(request, response, nth);
      response.writeHead(nth === 2 ? 503 : 429, { "retry-after": later }).end("slow down");
    };
    expect((await opened()).size).toBe(FILE.length);
    expect(slept).toEqual([7000, 60_000, 2000]);
  });

  test("stalls: the request is given up and made again", async () => {
    handler = (request, response, nth) => {
      if (nth === 2) return; // not even a status
      if (nth !== 3) return honest(request, response, nth);
      response.writeHead(206, { "content-range": `bytes 100000-199999/${FILE.length}` });
      response.write(FILE.subarray(100_000, 100_010));
    };
    const source = await opened({ stallMs: 150 });
    expect((await source.read(100_000, 200_000)).length).toBe(100_000);
    expect(requests).toHaveLength(4);
  });

  test("sends a page with status 200: named with its address and first bytes", async () => {
    for (const page of [PAGE, "\n\n  <HTML>", "\ufeff<html lang='en'>", "<head>"]) {
      handler = (request, response) =>
        serve(request, response, Buffer.from(page), { "content-type": "application/octet-stream" });
      const error = await failure(opened());
      expect(error).toMatchObject({
        code: "SOURCE_HTML",
        message: expect.stringContaining(`${origin}/model.safetensors: is a web page that begins with "`),
      });
    }
    await expect(opened()).rejects.toThrow("<head>");
  });

  test("redirects to a page: named with the address that was asked for", async () => {
    handler = (request, response) =>
      request.url === "/login"
        ? serve(request, response, Buffer.from(PAGE))
        : void response.writeHead(302, { location: "/login" }).end();
    await expect(opened()).rejects.toMatchObject({
      code: "SOURCE_HTML",
      message: expect.stringContaining("/model.safetensors"),
    });
  });

  test.each([401, 403, 400, 418])("refuses with status %i: not asked again, named with its words", async (status) => {
    handler = (_request, response) => void response.writeHead(status).end("Access \u001b[31mdenied");
    await expect(opened()).rejects.toMatchObject({
      code: "SOURCE_HTTP",
      message: expect.stringMatching(new RegExp(`HTTP ${status}.*"Access .u\\{1b\\}\\[31mdenied"`)),
    });
    expect(requests).toHaveLength(1);
  });

  test("is not reachable: an error that names the address", async () => {
    await expect(httpSource("http://127.0.0.1:1/x", options())).rejects.toMatchObject({
      code: "SOURCE_NETWORK",
      message: expect.stringContaining("http://127.0.0.1:1/x"),
    });
  });
});

describe("stopping", () => {
  test("an abort during a request or a pause ends it with its reason", async () => {
    handler = (request, response, nth) => {
      if (nth === 1) honest(request, response, nth);
    };
    const source = await opened();
    const stop = new AbortController();
    setTimeout(() => stop.abort(new Error("enough")), 50);
    await expect(source.read(100_000, 200_000, stop.signal)).rejects.toThrow("enough");
    const controller = new AbortController();
    const paused = opened({ signal: controller.signal, sleep: undefined });
    handler = (_request, response) => void response.writeHead(429, { "retry-after": "30" }).end();
    setTimeout(() => controller.abort(new Error("stop")), 50);
    await expect(paused).rejects.toThrow("stop");
  });

  test("closing ends a read that is under way", async () => {
    handler = (request, response, nth) => {
      if (nth === 1) honest(request, response, nth);
    };
    const source = await opened();
    const reading = failure(source.read(100_000, 200_000));
    setTimeout(() => void source.close(), 50);
    expect(await reading).toMatchObject({ code: "SOURCE_CLOSED" });
  });
});

describe("a folder over HTTP", () => {
  const valid = readFileSync(join(MALFORMED, "valid.safetensors"));
  const folder = (path = "/m", more?: Partial<HttpOptions>) => httpFolder(`${origin}${path}`, options(more));

  test("opens its files by name, and 404 and 410 mean that there is none", async () => {
    handler = (request, response, nth) => {
      if (request.url === "/m/config.json") serve(request, response, Buffer.from("{}"));
      else response.writeHead(nth % 2 === 0 ? 404 : 410).end(PAGE);
    };
    expect(folder().location).toBe(`${origin}/m/`);
    expect((await folder("/m/").open("config.json"))?.size).toBe(2);
    expect(await folder().open("tokenizer.json")).toBeUndefined();
    expect(await folder().open("x.json")).toBeUndefined();
  });

  test("keeps a query for every file, and shows neither it nor a password", async () => {
    handler = (request, response) => serve(request, response, Buffer.from("{}"));
    const source = await folder("/m?token=secret#part").open("a b/c#d?e%2e.json");
    expect(requests[0]?.path).toBe("/m/a%20b/c%23d%3Fe%252e.json?token=secret");
    expect(source?.name).not.toContain("secret");
  });

  test.each(["../x", "/x", "https://evil.example/x", "a/../../x", "..\\x"])("does not ask for %j", async (name) => {
    await expect(folder().open(name)).rejects.toMatchObject({ code: "SOURCE_NAME" });
    expect(requests).toHaveLength(0);
  });

  test("whose server has a page for every missing name is as good as any other", async () => {
    handler = (request, response) => {
      if (request.url === "/m/config.json") serve(request, response, Buffer.from("{}"));
      else if (request.url === "/m/model.safetensors") serve(request, response, valid);
      else serve(request, response, Buffer.from(PAGE), { "content-type": "text/html" });
    };
    expect(await folder().open("model.safetensors.index.json")).toBeUndefined();
    const checkpoint = await openCheckpoint(folder());
    expect(checkpoint.tensors.size).toBe(4);
    await checkpoint.close();
  });

  test("whose server answers everything with a page says so", async () => {
    handler = (request, response) => serve(request, response, Buffer.from(PAGE));
    for (const name of ["config.json", "model.safetensors"]) {
      await expect(folder().open(name)).rejects.toMatchObject({
        code: "SOURCE_HTML",
        message: expect.stringContaining("<!DOCTYPE html>"),
      });
    }
  });

  test.each(["ftp://x/y", "not a url", "file:///etc", ""])("at %j is refused", (url) => {
    expect(() => httpFolder(url, options())).toThrow("expected one that begins with https://");
  });
});
