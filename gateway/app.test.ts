/** The gateway without a socket: routes, keys, limits, errors in OpenAI's shape, streams, metrics. */
import { describe, expect, test } from "vitest";
import { FakeEngine, type Script } from "../test/fakeEngine.ts";
import { type Gateway, gateway, PATHS } from "./app.ts";
import type { GatewayOptions } from "./served.ts";

interface Answered {
  readonly line: string;
  readonly status: number;
  readonly error: unknown;
}

/** A gateway, its engine, and what its log was told. */
async function make(options: Partial<GatewayOptions> = {}, script: Script = {}) {
  const engine = await FakeEngine.load(script);
  const log: Answered[] = [];
  const made = gateway({
    engine,
    names: ["tiny", "other"],
    keys: [],
    origins: [],
    local: true,
    bodyLimit: 10_000,
    requestLimit: 4,
    onAnswered: (record, status, error) => log.push({ line: record.line(status), status, error }),
    ...options,
  });
  return { ...made, engine, log };
}

const BASE = "http://127.0.0.1:8080";

function post(path: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Request {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return new Request(BASE + path, {
    method: "POST",
    body: text,
    headers: { "content-type": "application/json", ...headers },
  });
}

const get = (path: string, headers: Readonly<Record<string, string>> = {}) => new Request(BASE + path, { headers });

/** Status, and the error in the body. */
async function failure({ fetch }: Gateway, request: Request) {
  const response = await fetch(request);
  const { error } = (await response.json()) as { error: Record<string, string | null> };
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  return { status: response.status, headers: response.headers, ...error };
}

const after = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

const chat = { messages: [{ role: "user", content: "hi" }], max_tokens: 3 };

describe("routes", () => {
  test("models, by list and by name", async () => {
    const { fetch } = await make();
    const list = (await (await fetch(get("/v1/models"))).json()) as { data: { id: string }[] };
    expect(list.data.map(({ id }) => id)).toEqual(["tiny", "other"]);
    expect(await (await fetch(get("/v1/models/other"))).json()).toMatchObject({
      id: "other",
      object: "model",
      max_model_len: 256,
    });
    expect(await failure(await make(), get("/v1/models/a/b"))).toMatchObject({ status: 404, code: "model_not_found" });
  });

  test("a server whose device is lost is not healthy", async () => {
    const { fetch, engine } = await make();
    const health = async () => {
      const response = await fetch(get("/health"));
      return [response.status, await response.json()];
    };
    expect(await health()).toEqual([200, { status: "ok" }]);
    engine.lost = 1;
    expect(await health()).toEqual([503, { status: "device lost" }]);
  });

  test("a model's name may have a slash", async () => {
    const { fetch } = await make({ names: ["owner/name"] });
    expect(await (await fetch(get("/v1/models/owner/name"))).json()).toMatchObject({ id: "owner/name" });
  });

  test("answers name the model that was asked for; another one is 404", async () => {
    const made = await make();
    for (const [model, said] of [
      [undefined, "tiny"],
      ["tiny", "tiny"],
      ["other", "other"],
    ]) {
      const response = await made.fetch(post("/v1/chat/completions", { ...chat, model }));
      expect(await response.json()).toMatchObject({ model: said });
    }
    const wrong = await failure(made, post("/v1/completions", { prompt: "a", model: "gpt-4" }));
    expect(wrong).toMatchObject({
      status: 404,
      param: "model",
      code: "model_not_found",
      type: "invalid_request_error",
    });
    expect(wrong).toMatchObject({ message: 'model: "gpt-4" is not served here, expected tiny or other' });
  });

  test("tokenize and detokenize are each other's inverse, and parse control tokens if they are told to", async () => {
    const { fetch, engine } = await make();
    const ask = async (path: string, body: object) =>
      (await (await fetch(post(path, body))).json()) as Record<string, unknown>;
    const prompt = "Once <|im_end|> upon";
    const tokens = await ask("/tokenize", { prompt, return_token_strs: true });
    expect(tokens).toMatchObject({ count: (tokens.tokens as number[]).length, max_model_len: 256 });
    expect(tokens.tokens).toContain(2);
    expect((tokens.token_strs as string[]).join("")).toBe(prompt);
    expect(await ask("/detokenize", { tokens: tokens.tokens })).toEqual({ prompt });
    expect((await ask("/tokenize", { prompt, parse_special: false })).tokens).not.toContain(2);
    const { messages } = chat;
    expect((await ask("/tokenize", { messages })).tokens).toEqual(engine.encode({ messages }));
  });

  test("a template's text has the tokens of the chat", async () => {
    const { fetch, engine } = await make({}, { template: "{{ mood }}<|im_start|>{{ messages[0].content }}" });
    const { messages } = chat;
    const body = { messages, add_generation_prompt: true, chat_template_kwargs: { mood: "glad " } };
    expect(await (await fetch(post("/apply-template", body))).json()).toEqual({ prompt: "glad <|im_start|>hi" });
    const prompt = engine.applyTemplate({ messages });
    expect(prompt).toBe("<|im_start|>hi");
    const ids = { tokens: engine.encode({ messages }) };
    expect(await (await fetch(post("/detokenize", ids))).json()).toEqual({ prompt });
  });

  test("tokens of a chat never come from what its messages spell, unless that is asked for", async () => {
    const { fetch } = await make();
    const messages = [{ role: "user", content: "a<|im_end|>b" }];
    const count = async (more: object) => {
      const { tokens } = (await (await fetch(post("/tokenize", { messages, ...more }))).json()) as { tokens: number[] };
      return tokens.filter((id) => id === 2).length;
    };
    expect([await count({}), await count({ parse_special: true })]).toEqual([1, 2]);
  });
});

describe("refusals", () => {
  test.each<[string, () => Request, number, object]>([
    [
      "no such path",
      () => get("/v2"),
      404,
      { message: expect.stringContaining("/v2: there is no such path; there are /health") },
    ],
    [
      "a wrong method",
      () => get("/v1/completions"),
      405,
      { message: "/v1/completions: is called by GET, expected POST" },
    ],
    [
      "a form",
      () => post("/v1/completions", "a=b", { "content-type": "text/plain" }),
      415,
      { message: 'content-type: is "text/plain", expected application/json' },
    ],
    ["no JSON", () => post("/v1/completions", "{"), 400, { message: expect.stringContaining("body: is not JSON") }],
    ["a list", () => post("/v1/completions", "[]"), 400, { message: "body: is a list, expected an object in JSON" }],
    [
      "a long body",
      () => post("/v1/completions", { prompt: "a".repeat(10_000) }),
      413,
      { message: expect.stringContaining("more than 10000 bytes") },
    ],
    [
      "a deep body",
      () => post("/v1/completions", "[".repeat(5000)),
      400,
      { message: expect.stringContaining("more than 64 deep") },
    ],
    [
      "an unknown field",
      () => post("/v1/chat/completions", { ...chat, temprature: 1 }),
      400,
      { param: "temprature", type: "invalid_request_error" },
    ],
    [
      "a long prompt",
      () => post("/v1/completions", { prompt: "cat ".repeat(400) }),
      400,
      { code: "context_length_exceeded" },
    ],
    [
      "another host's name",
      () => new Request("http://evil.example/v1/models"),
      403,
      { message: expect.stringContaining('host: is "evil.example"') },
    ],
    ["ids that are none", () => post("/detokenize", { tokens: ["a"] }), 400, { param: "tokens" }],
    [
      "ids of no token",
      () => post("/detokenize", { tokens: [1, 99_999] }),
      400,
      { param: "tokens", message: "tokens[1]: is 99999, expected an integer from 0 to 2047" },
    ],
    ["a template without messages", () => post("/apply-template", {}), 400, { param: "messages" }],
    ...["/v1/chat/completions", "/tokenize", "/apply-template"].map((path): [string, () => Request, number, object] => [
      `a variable of the template that ingle sets, ${path}`,
      () => post(path, { messages: chat.messages, chat_template_kwargs: { messages: [] } }),
      400,
      {
        param: "chat_template_kwargs",
        message: "chat_template_kwargs.messages: is set by ingle, expected another name",
      },
    ]),
    ["two prompts", () => post("/tokenize", { prompt: "a", messages: [] }), 400, { param: "prompt" }],
  ])("%s", async (_, request, status, error) => {
    const made = await make();
    expect(await failure(made, request())).toMatchObject({ status, ...error });
    expect(made.engine.asked).toEqual([]);
    expect(made.log.map((entry) => entry.status)).toEqual([status]);
  });

  test("a text that is too long to be encoded at leisure", async () => {
    const made = await make({ bodyLimit: 5_000_000 });
    const request = post("/tokenize", { prompt: "0123456789".repeat(400_000) });
    expect(await failure(made, request)).toMatchObject({ status: 400, code: "context_length_exceeded" });
  });

  test("brackets in strings are not nesting", async () => {
    const { fetch } = await make();
    const content = `${"[{".repeat(200)}\\"`;
    expect((await fetch(post("/tokenize", { messages: [{ role: "user", content }] }))).status).toBe(200);
  });

  test("a body that is not UTF-8", async () => {
    const made = await make();
    const request = new Request(`${BASE}/tokenize`, {
      method: "POST",
      body: new Uint8Array([0x22, 0xff, 0x22]),
      headers: { "content-type": "application/json" },
    });
    expect(await failure(made, request)).toMatchObject({ status: 400, message: "body: is not UTF-8" });
  });

  test("a long body without a length is cut off while it comes", async () => {
    const made = await make();
    let sent = 0;
    const body = new ReadableStream({
      pull: (controller) => {
        sent += 1000;
        controller.enqueue(new Uint8Array(1000));
      },
    });
    const init = { method: "POST", body, duplex: "half" as const, headers: { "content-type": "application/json" } };
    expect(await failure(made, new Request(`${BASE}/tokenize`, init))).toMatchObject({ status: 413 });
    expect(sent).toBeLessThan(20_000);
  });

  test("a template's own refusal is the client's fault", async () => {
    const made = await make({}, { template: "{{ raise_exception('no such role here') }}" });
    const failed = await failure(made, post("/v1/chat/completions", chat));
    expect(failed).toMatchObject({
      status: 400,
      param: "messages",
      message: expect.stringContaining("no such role here"),
    });
  });

  test("a fault of ours says nothing of its inside, but to the log", async () => {
    const made = await make({}, { beforeToken: () => Promise.reject(new TypeError("secret")) });
    const failed = await failure(made, post("/v1/chat/completions", chat));
    expect(failed).toMatchObject({ status: 500, type: "server_error" });
    expect(JSON.stringify(failed)).not.toContain("secret");
    expect(String(made.log[0]?.error)).toContain("secret");
  });
});

describe("keys", () => {
  const keys = ["first-key", "second-key"];

  test("every route but /health asks for one", async () => {
    const made = await make({ keys });
    for (const path of [...PATHS, "/no/such"]) {
      for (const request of [
        get(path),
        post(path, {}),
        get(path, { authorization: "Bearer first-kez" }),
        get(path, { authorization: "first-key" }),
      ]) {
        const { status } = await made.fetch(request);
        expect([path, status]).toEqual([path, path === "/health" && request.method === "GET" ? 200 : 401]);
      }
    }
    expect(await failure(made, get("/v1/models"))).toMatchObject({
      type: "authentication_error",
      code: "invalid_api_key",
    });
  });

  test("each of them is let in, under any host's name", async () => {
    const made = await make({ keys });
    for (const key of keys) {
      const request = new Request("http://inner.example/v1/models", { headers: { authorization: `Bearer ${key}` } });
      expect((await made.fetch(request)).status).toBe(200);
    }
  });

  test("no answer and no line of the log holds a key", async () => {
    const made = await make({ keys });
    const response = await made.fetch(get("/v1/models?key=first-key", { authorization: "Bearer first-kez" }));
    expect(await response.text()).not.toContain("first-ke");
    expect(JSON.stringify(made.log)).not.toContain("first-ke");
  });
});

describe("pages of other origins", () => {
  const asking = { origin: "https://a.example", "access-control-request-method": "POST" };
  const preflight = () => new Request(`${BASE}/v1/completions`, { method: "OPTIONS", headers: asking });

  test("may not ask unless they are allowed to", async () => {
    const { fetch } = await make();
    const response = await fetch(preflight());
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  test("of an allowed origin may, before they show their key", async () => {
    const { fetch } = await make({ keys: ["k"], origins: ["https://a.example"] });
    const response = await fetch(preflight());
    expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([204, "https://a.example"]);
    const refused = await fetch(post("/v1/completions", {}, { origin: "https://a.example" }));
    expect([refused.status, refused.headers.get("access-control-allow-origin")]).toEqual([401, "https://a.example"]);
    const other = await fetch(
      new Request(`${BASE}/v1/completions`, { method: "OPTIONS", headers: { ...asking, origin: "https://b.example" } }),
    );
    expect(other.headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("streams", () => {
  const streamed = { ...chat, stream: true, stream_options: { include_usage: true } };

  test("are events that end in [DONE]", async () => {
    const { fetch, log } = await make();
    const response = await fetch(post("/v1/chat/completions", streamed));
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(log).toEqual([]);
    const events = (await response.text()).split("\n\n");
    expect(events.splice(-2)).toEqual(["data: [DONE]", ""]);
    const chunks = events.map((event) => JSON.parse(event.replace(/^data: /, "")));
    expect(chunks.every(({ object }) => object === "chat.completion.chunk")).toBe(true);
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 3 } });
    await expect.poll(() => log.length).toBe(1);
    expect(log[0]?.line).toMatch(
      /^POST \/v1\/chat\/completions 200 · prompt \d+ tok · generated 3 tok · first token \d+ ms · \d+ ms$/,
    );
  });

  test("an error before the first token has its status, one after it is the last event", async () => {
    const early = await make({}, { beforeToken: () => Promise.reject(new TypeError("x")) });
    expect(await failure(early, post("/v1/chat/completions", streamed))).toMatchObject({ status: 500 });
    const late = await make({}, { beforeToken: (i) => (i < 2 ? undefined : Promise.reject(new TypeError("x"))) });
    const response = await late.fetch(post("/v1/chat/completions", streamed));
    expect(response.status).toBe(200);
    const events = (await response.text()).trimEnd().split("\n\n");
    expect(JSON.parse(events.at(-1)?.replace(/^data: /, "") ?? "")).toMatchObject({ error: { type: "server_error" } });
    expect(late.log[0]).toMatchObject({ status: 500 });
  });

  test("who leaves one ends its work, and it is no longer counted", async () => {
    const { fetch, engine, gate, log } = await make();
    const body = { ...streamed, max_tokens: 200, n: 2 };
    const response = await fetch(post("/v1/chat/completions", body));
    const reader = response.body?.getReader();
    await reader?.read();
    await reader?.cancel();
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
    expect(engine.made).toBeLessThan(20);
    await expect.poll(() => log.map(({ status }) => status)).toEqual([499]);
  });

  test("a client that reads nothing holds its model back", async () => {
    const { fetch, engine } = await make();
    const response = await fetch(post("/v1/chat/completions", { ...streamed, max_tokens: 200 }));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(engine.made).toBeLessThan(4);
    await response.body?.cancel();
  });

  test("the client's signal ends an answer that is not streamed", async () => {
    const { fetch, engine, gate } = await make({}, { beforeToken: () => after(10) });
    const stop = new AbortController();
    const request = post("/v1/chat/completions", { ...chat, max_tokens: 200 });
    const working = fetch(new Request(request, { signal: stop.signal }));
    await expect.poll(() => engine.made).toBeGreaterThan(2);
    stop.abort();
    expect((await working).status).toBe(503);
    await expect.poll(() => [engine.running, gate.inside]).toEqual([0, 0]);
  });
});

describe("room", () => {
  test("requests past the limit are told to come back, and one that ends makes room", async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const made = await make({ requestLimit: 2 }, { beforeToken: () => held });
    const working = [1, 2].map(() => made.fetch(post("/v1/chat/completions", chat)));
    await expect.poll(() => made.engine.running).toBe(2);
    const refused = await failure(made, post("/v1/chat/completions", chat));
    expect(refused).toMatchObject({ status: 503, type: "overloaded_error" });
    expect(refused.headers.get("retry-after")).toBe("1");
    expect((await made.fetch(get("/health"))).status).toBe(200);
    release();
    for (const response of await Promise.all(working)) expect(response.status).toBe(200);
    expect((await made.fetch(post("/v1/chat/completions", chat))).status).toBe(200);
  });

  test("a server that ends lets nobody in, waits, and then ends the rest", async () => {
    const made = await make({}, { beforeToken: () => after(30) });
    const quick = made.fetch(post("/v1/chat/completions", chat));
    const slow = made.fetch(post("/v1/chat/completions", { ...chat, max_tokens: 200 }));
    await expect.poll(() => made.engine.running).toBe(2);
    const empty = made.gate.close();
    expect((await made.fetch(get("/health"))).status).toBe(503);
    expect(await failure(made, post("/v1/chat/completions", chat))).toMatchObject({ status: 503 });
    expect((await quick).status).toBe(200);
    expect(made.gate.inside).toBe(1);
    made.gate.abortAll();
    expect((await slow).status).toBe(503);
    expect(made.log.at(-1)?.status).toBe(503);
    await empty;
  });
});

describe("metrics", () => {
  test("agree with what was answered", async () => {
    const made = await make();
    await (await made.fetch(post("/v1/chat/completions", { ...chat, n: 2 }))).json();
    await made.fetch(post("/v1/chat/completions", { wrong: 1 }));
    const response = await made.fetch(get("/metrics"));
    expect(response.headers.get("content-type")).toContain("text/plain; version=0.0.4");
    const text = await response.text();
    const prompt = made.engine.encode(chat).length;
    for (const line of [
      'vllm:generation_tokens_total{model_name="tiny"} 6',
      `vllm:prompt_tokens_total{model_name="tiny"} ${prompt}`,
      'vllm:request_prompt_tokens_count{model_name="tiny"} 1',
      'vllm:request_success_total{model_name="tiny",finished_reason="length"} 2',
      'vllm:kv_cache_usage_perc{model_name="tiny"} 0.25',
      'vllm:request_generation_tokens_bucket{model_name="tiny",le="2"} 0',
      'vllm:request_generation_tokens_bucket{model_name="tiny",le="5"} 2',
      'vllm:request_generation_tokens_bucket{model_name="tiny",le="+Inf"} 2',
      'vllm:request_generation_tokens_sum{model_name="tiny"} 6',
      'ingle:http_responses_total{model_name="tiny",route="/v1/chat/completions",status="200"} 1',
      'ingle:http_responses_total{model_name="tiny",route="/v1/chat/completions",status="400"} 1',
      'ingle:memory_bytes{model_name="tiny",kind="weights"} 1000',
    ])
      expect(text.split("\n")).toContain(line);
  });

  test("are one block a metric, as Prometheus wants them", async () => {
    const text = await (await (await make()).fetch(get("/metrics"))).text();
    const names = Array.from(text.matchAll(/^# TYPE (\S+) (\w+)$/gm), ([, name]) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const line of text.trimEnd().split("\n"))
      expect(line).toMatch(/^# (HELP|TYPE) |^[a-z]+:[a-z0-9_]+\{.*\} [\d.e+-]+$/);
  });

  test("an unknown path adds no label of its own", async () => {
    const made = await make();
    for (const path of ["/a", "/b"]) await made.fetch(get(path));
    const text = await (await made.fetch(get("/metrics"))).text();
    expect(text).toContain('ingle:http_responses_total{model_name="tiny",route="none",status="404"} 2');
  });
});
