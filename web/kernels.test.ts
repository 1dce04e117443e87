import type { Browser } from "puppeteer-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runConformance } from "../kernels/conformance.ts";
import { noChromium, openBrowser, openPage, openSite, reach, type Site, text } from "./chromium.ts";

const FULL = process.env.INGLE_SUITE === "full";

describe.skipIf(noChromium !== "")(`the kernels' page in Chromium${noChromium && `: skipped, ${noChromium}`}`, () => {
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

  /** Runs the page with a query and returns its report. */
  async function proved(query: string) {
    const { page, complaints } = await openPage(browser, `${site.url}kernels.html${query}`);
    const { state, status } = await reach(page, "done");
    const report = await page.evaluate(() => window.__report);
    const failures = await page.$$eval("[data-testid=failures] li", (items) => items.map((it) => it.textContent));
    expect({ state, failures, complaints }, status).toEqual({ state: "done", failures: [], complaints: [] });
    const rows = await page.$$eval("[data-testid=report] tr", (all) => all.map((row) => row.cells[0]?.textContent));
    await page.close();
    return { report, status, rows };
  }

  test("proves the kernels that Node proves: the report's hash is the same", async () => {
    const { report, status, rows } = await proved("?filter=pick_rows&limits=default&features=none");
    const node = await runConformance({
      adapter: "swiftshader",
      filter: "pick_rows",
      limits: "default",
      features: "none",
    });
    expect(report?.hash).toBe(node.hash);
    expect(report?.passed).toBe(node.passed);
    expect(status).toContain(`${node.passed} of ${node.passed} cases passed`);
    expect(rows).toEqual(["pick_rows"]);
  });

  test.runIf(FULL)("all named cases pass with the default limits", async () => {
    const { report } = await proved("?limits=default&features=none");
    expect(report?.passed).toBeGreaterThanOrEqual(300);
    expect(report?.cases.length).toBe(report?.passed);
  });

  test("a filter that leaves nothing is an error, not a pass", async () => {
    const { page } = await openPage(browser, `${site.url}kernels.html?filter=nothing`);
    const { state, status } = await reach(page, "done");
    expect({ state, status }).toEqual({ state: "error", status: expect.stringContaining('"nothing"') });
    expect(await text(page, "report")).toBe("");
    await page.close();
  });
});
