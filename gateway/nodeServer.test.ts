/** The gateway on a socket: OpenAI's own client, raw connections that misbehave, an end in good order. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import OpenAI, { APIError, AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { afterEach, describe, expect, test } from "vitest";
import { FakeEngine, type Script } from "../test/fakeEngine.ts";
import { type Gateway, gateway } from "./app.ts";
import { type Listening, listen } from "./nodeServer.ts";
import type { GatewayOptions } from "./served.ts";

const open: Pick<Server, "server" | "gate">[] = [];
afterEach(async () => {
  for (const { server, gate } of open.splice(0)) await server.close(0, gate);
});

interface Server {
  readonly server: Listening;
  readonly engine: FakeEngine;
  readonly client: OpenAI;
  readonly port: number;
  readonly gate: Gateway["gate"];
}

async function start(script: Script = {}, options: Partial<GatewayOptions> = {}): Promise<Server> {
  const engine = await FakeEngine.load(script);
  const made = gateway({
    engine,
    names: ["tiny"],
    keys: ["secret"],
    origins: [],
    local: true,
    bodyLimit: 2 ** 20,
    requestLimit: 100,
    ...options,
  });
  const server = await listen((request) => made.fetch(request), { host: "127.0.0.1", port: 0 });
  open.push({ server, gate: made.gate });
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "secret", maxRetries: 0 });
  return { server, engine, client, port: Number(new URL(server.url).port), gate: made.gate };
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const messages = [{ role: "user" as const, content: "hi" }];
const chat = { model: "tiny", messages, max_tokens: 5 };

describe("OpenAI's client", () => {
  test("a chat, whole and streamed", async () => {
    const { client } = await start();
    const whole = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 1, n: 2 });
    expect(whole.choices).toHaveLength(2);
    expect(whole.choices[0]?.logprobs?.content).toHaveLength(5);
    expect(whole.usage).toMatchObject({ completion_tokens: 10, prompt_tokens_details: { cached_tokens: 0 } });
    const pieces: string[] = [];
    const stream = await client.chat.completions.create({
      ...chat,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const { choices, usage } of stream) {
      pieces.push(choices[0]?.delta.content ?? "");
      if (choices.length === 0) expect(usage?.completion_tokens).toBe(5);
    }
    expect(pieces.join("")).toBe(whole.choices[0]?.message.content);
    expect(pieces.join("")).toMatch(/^ the cat/);
  });

  test("its helper puts a streamed chat together", async () => {
    const { client } = await start();
    const final = await client.chat.completions.stream(chat).finalChatCompletion();
    const whole = await client.chat.completions.create(chat);
    expect(final.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
    expect(final.choices[0]?.finish_reason).toBe("length");
  });

  test("texts, whole and streamed", async () => {
    const { client } = await start();
    const body = { model: "tiny", prompt: ["Once", "The"], max_tokens: 4, logprobs: 2, echo: true };
    const whole = await client.completions.create(body);
    expect(whole.choices.map(({ text }) => text)).toEqual(["Once the cat sat on", "The the cat sat on"]);
    const texts = ["", ""];
    for await (const { choices } of await client.completions.create({ ...body, stream: true }))
      for (const { index, text } of choices) texts[index] += text;
    expect(texts).toEqual(whole.choices.map(({ text }) => text));
  });

  test("models", async () => {
    const { client } = await start();
    const ids: string[] = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(["tiny"]);
    expect((await client.models.retrieve("tiny")).owned_by).toBe("ingle");
  });

  test("errors are its own classes, and name the field", async () => {
    const { client, server } = await start();
    const bad = client.chat.completions.create({ ...chat, temperature: 1e9 });
    await expect(bad).rejects.toThrow(BadRequestError);
    await expect(bad).rejects.toMatchObject({ status: 400, param: "temperature", type: "invalid_request_error" });
    const long = client.completions.create({ model: "tiny", prompt: "cat ".repeat(300) });
    await expect(long).rejects.toMatchObject({ code: "context_length_exceeded" });
    await expect(client.models.retrieve("other")).rejects.toThrow(NotFoundError);
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "guessed", maxRetries: 0 });
    await expect(stranger.models.retrieve("tiny")).rejects.toThrow(AuthenticationError);
  });

  test("an error in a stream is thrown to whoever reads it", async () => {
    const { client } = await start({ beforeToken: (i) => (i < 2 ? undefined : Promise.reject(new TypeError("x"))) });
    const stream = await client.chat.completions.create({ ...chat, stream: true });
    const read = async () => {
      for await (const _ of stream);
    };
    await expect(read()).rejects.toThrow(APIError);
  });

  test("leaving a stream, or aborting a call, ends the work within a token or two", async () => {
    const { client, engine, gate } = await start({ beforeToken: () => sleep(5) });
    const stream = await client.chat.completions.create({ ...chat, max_tokens: 200, n: 3, stream: true });
    for await (const _ of stream) break;
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
    const stop = new AbortController();
    const call = client.chat.completions.create({ ...chat, max_tokens: 200 }, { signal: stop.signal });
    await expect.poll(() => engine.running).toBe(1);
    stop.abort();
    await expect(call).rejects.toThrow();
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
    expect(engine.made).toBeLessThan(100);
  });
});

/** Sends bytes and leaves the connection open. */
async function raw(port: number, text: string): Promise<Socket> {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.on("error", () => {});
  socket.write(text);
  return socket;
}

/** All that comes until the connection is closed. */
async function rest(socket: Socket): Promise<string> {
  let text = "";
  for await (const piece of socket.setEncoding("utf8")) text += piece;
  return text;
}

const request = (body: object, more = "") => {
  const text = JSON.stringify(body);
  const head = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "authorization: Bearer secret"];
  head.push("content-type: application/json", `content-length: ${Buffer.byteLength(text)}`);
  return `${head.join("\r\n")}\r\n${more}\r\n${text}`;
};

describe("connections", () => {
  test("headers of 17 KB are refused in OpenAI's shape", async () => {
    const { port } = await start();
    const answer = await rest(await raw(port, request(chat, `x-long: ${"a".repeat(17_000)}\r\n`)));
    expect(answer).toMatch(/^HTTP\/1.1 431 /);
    expect(JSON.parse(answer.split("\r\n\r\n")[1] ?? "")).toMatchObject({
      error: { message: "request: its headers are more than 16384 bytes", type: "invalid_request_error" },
    });
  });

  test.each([
    ["no HTTP", "hello\r\n\r\n"],
    ["no host", "GET /health HTTP/1.0\r\n\r\n"],
    ["an address that is none", "GET \\evil HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"],
  ])("%s is 400", async (_, text) => {
    const { port } = await start();
    const answer = await rest(await raw(port, text));
    expect(answer).toMatch(/^HTTP\/1.1 400 /);
    expect(answer).toContain('"type":"invalid_request_error"');
  });

  test("a body of 5 MB is refused, and the client learns why", async () => {
    const { server } = await start();
    const headers = { authorization: "Bearer secret", "content-type": "application/json" };
    const body = JSON.stringify({ ...chat, user: "a".repeat(5_000_000) });
    const response = await fetch(`${server.url}/v1/chat/completions`, { method: "POST", headers, body });
    expect([response.status, await response.json()]).toEqual([413, { error: expect.objectContaining({ code: null }) }]);
  });

  test("clients that drop at any token leave nothing behind", async () => {
    const { client, engine, gate } = await start();
    for (let drop = 0; drop < 60; drop++) {
      const stream = await client.chat.completions.create({ ...chat, max_tokens: 30, n: 1 + (drop % 3), stream: true });
      let seen = 0;
      for await (const _ of stream) if (seen++ === drop) break;
    }
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
    const { choices } = await client.chat.completions.create(chat);
    expect(choices[0]?.message.content).toMatch(/^ the cat/);
  });

  test("a client that stops reading stops its model, and a closed one is forgotten", { timeout: 60_000 }, async () => {
    const { port, engine, gate } = await start({ context: 200_000 });
    const body = { messages, max_tokens: 100_000, ignore_eos: true, logprobs: true, top_logprobs: 64, stream: true };
    const socket = await raw(port, request(body));
    socket.pause();
    let before = -1;
    const hasStopped = () => {
      const stopped = engine.made === before;
      before = engine.made;
      return stopped;
    };
    await expect.poll(hasStopped, { interval: 500, timeout: 30_000 }).toBe(true);
    expect(engine.made).toBeLessThan(5000); // some megabytes, which the system's buffers hold
    expect(engine.running).toBe(1);
    socket.destroy();
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
  });

  test("a client that closes while its prompt is read ends its work", async () => {
    const { port, engine, gate } = await start({ beforeToken: (i) => (i === 0 ? sleep(100) : undefined) });
    const socket = await raw(port, request(chat));
    await expect.poll(() => engine.running).toBe(1);
    socket.destroy();
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
    expect(engine.made).toBe(0);
  });
});

describe("the end", () => {
  test("waits for answers on their way", async () => {
    const { client, server, engine, port, gate } = await start({ beforeToken: () => sleep(20) });
    const stream = await client.chat.completions.create({ ...chat, max_tokens: 10, stream: true });
    const text: string[] = [];
    const read = (async () => {
      for await (const { choices } of stream) text.push(choices[0]?.delta.content ?? "");
    })();
    expect(await server.close(5000, gate)).toBe(0);
    await read;
    expect(text.join("").length).toBeGreaterThan(20);
    expect(engine.running).toBe(0);
    const refused = connect(port, "127.0.0.1");
    const [error] = await once(refused, "error");
    expect(error).toMatchObject({ code: "ECONNREFUSED" });
  });

  test("cuts off what takes longer, and says how many", async () => {
    const { client, server, engine, gate } = await start({ beforeToken: () => sleep(20) });
    const slow = { ...chat, max_tokens: 200 };
    const streams = await Promise.all([1, 2].map(() => client.chat.completions.create({ ...slow, stream: true })));
    const call = client.chat.completions.create(slow);
    const ends = Promise.allSettled([
      ...streams.map(async (stream) => {
        for await (const _ of stream);
      }),
      call,
    ]);
    await expect.poll(() => engine.running).toBe(3);
    const begun = performance.now();
    expect(await server.close(50, gate)).toBe(3);
    expect(performance.now() - begun).toBeLessThan(3000);
    expect((await ends).map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(engine.running).toBe(0);
  });

  test("does not wait for connections that are merely open", async () => {
    const { server, port, gate } = await start();
    await raw(port, "");
    await raw(port, "POST /v1/chat/completions HTTP/1.1\r\nhost: loc");
    const begun = performance.now();
    expect(await server.close(5000, gate)).toBe(0);
    expect(performance.now() - begun).toBeLessThan(3000);
  });

  test("an address that is taken is named", async () => {
    const { port } = await start();
    await expect(listen(() => new Response(), { host: "127.0.0.1", port })).rejects.toThrow(
      `127.0.0.1:${port}: is in use; choose another port`,
    );
  });
});
