/** `ingle serve` with a real model: its answers are the engine's, documented examples work, and it ends as it is told. */
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildIfStale, command, type Ended, type Running, running } from "../test/builtCommand.ts";
import { ROOT } from "../test/sourceFiles.ts";

const SERVING = /serving default on (http:\/\/127\.0\.0\.1:\d+)\/v1/;
const serve = (...words: string[]) => running(["serve", "--port", "0", ...words]);

const TEXT = "Once upon a time there was a little girl who had a red ball.";

let server: Running;
let url = "";
/** What other commands say, begun while the server loads: each compiles its kernels, on one core. */
let said: Promise<Ended>;
let scored: Promise<Ended>;
beforeAll(async () => {
  buildIfStale();
  said = command(["run", "--chat", "--temperature", "0", "-n", "12", "--quiet", "Who are you?"]);
  scored = command(["score", "--json", "--top", "1", "--text", TEXT, "--quiet"]);
  server = serve("--alias", "HuggingFaceTB/SmolLM2-135M-Instruct");
  url = (await server.found(SERVING))[1] ?? "";
});
afterAll(async () => {
  server.send("SIGKILL");
  await server.ended;
});

const client = () => new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

describe("usage", () => {
  test.each<[string[], string]>([
    [["a prompt"], "a prompt: serve takes no prompt; did you mean -m a prompt?"],
    [["--port", "70000"], '--port: is "70000", expected a whole number from 0 to 65535'],
    [["--api-key", ""], "--api-key or INGLE_API_KEY: is empty or has white space in it, expected a key"],
    [
      ["--allow-origin", "example.org"],
      '--allow-origin: is "example.org", expected an origin such as https://example.org, or *',
    ],
  ])("%j: exit code 2 and one line", async (words, message) => {
    const { code, stderr } = await command(["serve", ...words]);
    expect([code, stderr]).toEqual([2, `ingle: ${message}\n`]);
  });

  test("a port that is taken is a failure in one line", async () => {
    const { port } = new URL(url);
    const { code, stderr } = await command(["serve", "--quiet", "--port", port]);
    expect(stderr.trim().split("\n").at(-1)).toBe(`ingle: 127.0.0.1:${port}: is in use; choose another port`);
    expect(code).toBe(1);
  });
});

describe("answers", () => {
  const messages = [{ role: "user" as const, content: "Who are you?" }];

  test("are those of `ingle run`, whole and streamed", async () => {
    const { stdout } = await said;
    const body = { model: "default", messages, temperature: 0, max_tokens: 12 };
    const whole = await client().chat.completions.create(body);
    expect(whole.choices[0]?.message.content).toBe(stdout.trimEnd());
    let streamed = "";
    for await (const { choices } of await client().chat.completions.create({ ...body, stream: true }))
      streamed += choices[0]?.delta.content ?? "";
    expect(streamed).toBe(stdout.trimEnd());
  });

  test("log-probabilities of prompts are those of `ingle score`, bit for bit", async () => {
    const score = JSON.parse((await scored).stdout) as {
      tokens: number[];
      logprobs: (number | null)[];
      top: ({ logprob: number }[] | null)[];
    };
    // As lm-eval asks: ids, a token more than is wanted, greedy.
    const { choices, usage } = await client().completions.create({
      model: "default",
      prompt: [score.tokens],
      temperature: 0,
      max_tokens: 1,
      logprobs: 1,
      seed: 1234,
      echo: true,
    });
    const logprobs = choices[0]?.logprobs;
    expect(logprobs?.token_logprobs?.slice(0, -1)).toEqual(score.logprobs);
    const best = logprobs?.top_logprobs?.map((top) => (top === null ? null : Math.max(...Object.values(top))));
    expect(best?.slice(0, -1)).toEqual(score.top.map((top) => top?.[0]?.logprob ?? null));
    expect(usage?.prompt_tokens).toBe(score.tokens.length);
    const greedy = best?.filter((value, i) => value !== null && value === logprobs?.token_logprobs?.[i]).length ?? 0;
    expect(greedy).toBeGreaterThan(5);
    expect(greedy).toBeLessThan(score.tokens.length);
  });

  test("several answers to a long prompt find its pages, and differ", async () => {
    const prompt = "The little girl and the big dog went to the park to play with a ball. ".repeat(4);
    const body = { model: "default", prompt, n: 3, max_tokens: 12, temperature: 1, seed: 3, echo: false };
    const { choices } = await client().completions.create(body);
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
    const again = await client().completions.create({ ...body, n: 1 });
    expect(again.choices[0]?.text).toBe(choices[0]?.text);
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(30);
  });

  test("a client that leaves frees its pages at once", async () => {
    const stream = await client().chat.completions.create({
      model: "default",
      messages,
      max_tokens: 900,
      stream: true,
      ...{ ignore_eos: true },
    });
    let seen = 0;
    for await (const _ of stream) if (++seen === 4) break;
    const held = async () => /kv_cache_usage_perc\{.*\} (\S+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1];
    await expect.poll(held).toBe("0");
  });
});

describe("documented examples", () => {
  const pages = ["docs/server.md", "README.md"].map((path) => readFileSync(join(ROOT, path), "utf8"));
  const calls = pages.flatMap((text) =>
    Array.from(
      text
        .replaceAll("\\\n", "")
        .matchAll(/^curl (http:\/\/127\.0\.0\.1:8080)(\S+) -H '([^:]+): ([^']+)' +-d '(.+)'$/gm),
    ),
  );

  test("there are some of each", () => {
    const count = pages.join("").match(/^curl /gm)?.length;
    expect(calls).toHaveLength(count ?? -1);
    expect(new Set(calls.map(([, , path]) => path))).toEqual(
      new Set(["/v1/chat/completions", "/v1/completions", "/tokenize"]),
    );
  });

  test("of curl are answered", async () => {
    for (const [, , path, name = "", value = "", body = ""] of calls) {
      const response = await fetch(url + path, { method: "POST", headers: { [name]: value }, body });
      const text = await response.text();
      expect([response.status, text]).toEqual([200, expect.stringMatching(/^\{.*\}$|data: \[DONE\]\n\n$/s)]);
    }
  });

  test("of OpenAI's client runs", async () => {
    const [, code = ""] = /```ts\n(import OpenAI[\s\S]*?)```/.exec(pages[0] ?? "") ?? [];
    const here = code.replace(/^import .*$/m, "").replace("http://127.0.0.1:8080", url);
    let said = "";
    const stdout = { write: (text: string) => (said += text) };
    const run = new Function("OpenAI", "process", `return (async () => {${here}})()`);
    await run(OpenAI, { stdout });
    expect(said).toMatch(/\bingle\b/);
  });
});

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** What `work` gives once it does not fail. */
async function until<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

describe("the end", () => {
  test("SIGTERM lets an answer on its way end; exit code 0", async () => {
    const port = await freePort();
    const own = running(["serve", "--api-key", "secret", "--port", `${port}`]);
    // While it loads it says so.
    const early = await until(() => fetch(`http://127.0.0.1:${port}/health`));
    expect([early.status, await early.json()]).toEqual([503, { error: expect.objectContaining({ code: "loading" }) }]);
    const [, base] = await own.found(SERVING);
    const asking = new OpenAI({ baseURL: `${base}/v1`, apiKey: "secret", maxRetries: 0 });
    const body = {
      model: "default",
      prompt: "Once upon a time",
      max_tokens: 24,
      stream: true as const,
      ...{ ignore_eos: true },
    };
    let reason: string | null = null;
    for await (const { choices } of await asking.completions.create(body)) {
      own.send("SIGTERM"); // again and again: only the first counts
      reason = choices[0]?.finish_reason ?? null;
    }
    expect(reason).toBe("length");
    const { code, stderr } = await own.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/POST \/v1\/completions 200 · prompt \d+ tok · generated 24 tok · first token/);
    expect(stderr).not.toContain("secret");
  });

  test("Ctrl-C ends it with 130", async () => {
    server.send("SIGINT");
    const { code, stdout, stderr } = await server.ended;
    expect([code, stdout]).toEqual([130, ""]);
    expect(stderr).toMatch(/ending: no more requests are taken\n$/);
  });
});
