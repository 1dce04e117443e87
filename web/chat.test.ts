import { statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "puppeteer-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import type { GenerateRequest, Part } from "../engine/types.ts";
import { sharedDevice } from "../test/sharedDevice.ts";
import { noChromium, openBrowser, openPage, openSite, reach, type Site, text } from "./chromium.ts";

const QUESTION = "Tell me a story about a brave little fox.";

describe.skipIf(noChromium !== "")(`the chat page in Chromium${noChromium && `: skipped, ${noChromium}`}`, () => {
  let site: Site;
  let browser: Browser;
  beforeAll(async () => {
    site = await openSite();
    browser = await openBrowser("swiftshader");
  });
  afterAll(async () => {
    await browser?.close();
    site?.close();
  });

  const ask = async (page: Page, question: string) => {
    await page.type("[data-testid=prompt]", question);
    await page.keyboard.press("Enter");
  };
  const lastAnswer = async (page: Page) => ({
    text: await text(page, "answer"),
    tokens: await page.$eval("[data-testid=answer]", (it) => it.getAttribute("data-tokens")),
    promptTokens: Number(/^prompt (\d+) tok/.exec(await text(page, "speed"))?.[1]), // what was said before is in it
  });

  test("says what Node says, token for token, turn after turn", async () => {
    const { page, complaints } = await openPage(browser, `${site.url}chat.html?temperature=0&max_tokens=24`);
    expect(await reach(page, "ready")).toMatchObject({ state: "ready", status: expect.stringContaining("Ready") });
    const answers = [];
    for (const question of [QUESTION, "What is two plus two?"]) {
      await ask(page, question);
      expect(await reach(page, "done")).toMatchObject({ state: "done" });
      answers.push(await lastAnswer(page));
    }
    expect(await text(page, "speed")).toMatch(/^prompt \d+ tok.* tok\/s · generated \d+ tok.* · first token \d+ ms$/);
    await page.click("[data-testid=clear]");
    await ask(page, "Once upon a time");
    await reach(page, "done");
    answers.push(await lastAnswer(page));
    const shot = join(tmpdir(), "ingle-chat.png");
    await page.screenshot({ path: shot });
    expect(statSync(shot).size).toBeGreaterThan(5_000);
    expect(complaints).toEqual([]);
    expect(site.missing).toEqual([]);
    await page.close();

    const engine = await Engine.load("default", { device: await sharedDevice("adapter", "swiftshader") });
    try {
      const first = { role: "user", content: QUESTION };
      const said = [first, { role: "assistant", content: answers[0]?.text ?? "" }];
      const second = { role: "user", content: "What is two plus two?" };
      const requests = [{ messages: [first] }, { messages: [...said, second] }, { prompt: "Once upon a time" }];
      expect(answers).toEqual(await Promise.all(requests.map((request) => greedy(engine, request))));
      expect(answers[0]?.tokens?.split(" ")).toHaveLength(24);
    } finally {
      await engine.close();
    }
  });

  test("stops by its button and by Escape, and answers again", async () => {
    const { page } = await openPage(browser, `${site.url}chat.html?temperature=0`);
    await reach(page, "ready");
    const stops = [() => page.click("[data-testid=stop]"), () => page.keyboard.press("Escape")];
    for (const stop of stops) {
      await ask(page, QUESTION);
      await page.waitForFunction(() => document.querySelector("[data-testid=answer]")?.textContent !== "");
      await stop();
      expect(await reach(page, "done")).toEqual({ state: "done", status: "Stopped." });
      expect(await text(page, "speed")).toMatch(/^stopped after \d+ tok$/);
    }
    await page.close();
  });

  test.each([
    ["?temperature=warm", 'temperature: is "warm", expected a number from 0'],
    ["?temprature=0", "temprature: is no setting of this page, expected model, temperature"],
    ["?model=models/nothing/", "models/nothing/: has no config.json"],
  ])("%s is refused in a sentence", async (query, sentence) => {
    const { page } = await openPage(browser, `${site.url}chat.html${query}`);
    expect(await reach(page, "ready")).toEqual({ state: "error", status: expect.stringContaining(sentence) });
    expect(await page.$eval("[data-testid=send]", (it) => it.hasAttribute("disabled"))).toBe(true);
    await page.close();
  });

  test("where WebGPU is missing says so and what to do, and fetches no model", async () => {
    const without = await openBrowser("none");
    try {
      const asked = site.asked.length;
      const { page, complaints } = await openPage(without, `${site.url}chat.html`);
      const { state, status } = await reach(page, "ready");
      expect(state).toBe("error");
      expect(status).toMatch(/^WebGPU is missing: this browser .*(Use Chrome|Switch graphics acceleration on)/);
      expect(site.asked.slice(asked).filter((path) => path.includes("models/"))).toEqual([]);
      expect(complaints.filter((it) => it !== "No available adapters.")).toEqual([]); // Chromium's own words
    } finally {
      await without.close();
    }
  });
});

async function greedy(engine: Engine, request: GenerateRequest) {
  const parts: Part[] = [];
  for await (const part of engine.generate({ ...request, temperature: 0, maxTokens: 24 })) parts.push(part);
  return {
    text: parts.map((part) => part.text).join(""),
    tokens: parts.map(({ token }) => token).join(" "),
    promptTokens: parts.at(-1)?.usage?.promptTokens,
  };
}
