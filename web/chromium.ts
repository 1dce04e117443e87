/** For tests: the pages built from the sources, served on loopback, and opened in Chromium on SwiftShader. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize, sep } from "node:path";
import { fileURLToPath } from "node:url";
import chromium from "@sparticuz/chromium";
import puppeteer, { type Browser, type Page } from "puppeteer-core";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Why Chromium on SwiftShader is not for this machine or this run; "" where it is. */
export const noChromium =
  process.platform !== "linux" || process.arch !== "x64"
    ? "npm's Chromium is for linux x64 alone"
    : /^\s*$|swiftshader/i.test(process.env.INGLE_ADAPTER ?? "")
      ? ""
      : `INGLE_ADAPTER is ${process.env.INGLE_ADAPTER}, Chromium has SwiftShader`;

/** The built pages behind a web server. Whoever started it closes it. */
export interface Site {
  readonly url: string;
  /** Paths that were asked for and not there. */
  readonly missing: readonly string[];
  /** Every path that was asked for. */
  readonly asked: readonly string[];
  close(): void;
}

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
};

/** Builds the pages into a folder of their own and serves them, as strictly as a careful site would. */
export async function openSite(): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), "ingle-pages-"));
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, "scripts/buildPages.mjs"), folder], {
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`buildPages.mjs: exit code ${status}, expected 0: ${stderr}`);
  const missing: string[] = [];
  const asked: string[] = [];
  const server = createServer(({ url = "/" }, response) => {
    const path = decodeURIComponent(new URL(url, "http://localhost").pathname);
    asked.push(path);
    const file = join(folder, normalize(path));
    try {
      if (!file.startsWith(folder + sep)) throw new RangeError(`${path}: is outside of the pages`);
      const bytes = readFileSync(file);
      response.writeHead(200, {
        "content-type": TYPES[extname(file)] ?? "application/octet-stream",
        "content-length": bytes.length,
        "content-security-policy": "default-src 'self'; img-src 'self' data:",
      });
      response.end(bytes);
    } catch {
      missing.push(path);
      response.writeHead(404).end();
    }
  });
  const url = await listen(server);
  const close = () => {
    server.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { url, missing, asked, close };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("server: has no port, expected one");
  return `http://127.0.0.1:${address.port}/`;
}

/** What the package suggests for machines without a GPU, and what keeps WebGPU away. */
const DROPPED = /^--(single-process|in-process-gpu|no-zygote|use-gl|use-angle|disable-gpu|headless)/;

/** Zeroing workgroup memory by the driver's extension compiles slowly: with it the kernels' page takes 57 s on SwiftShader, without 35 s (2026-11). */
const FEATURES = "--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension";

/** Starts Chromium, with WebGPU on SwiftShader or without WebGPU. Whoever opened it closes it. */
export async function openBrowser(webgpu: "swiftshader" | "none"): Promise<Browser> {
  const own = chromium.args.filter((flag) => !DROPPED.test(flag));
  // Without these, Chromium finds no adapter on a machine without a GPU.
  const flags =
    webgpu === "none" ? ["--disable-gpu"] : ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", FEATURES];
  return await puppeteer.launch({
    executablePath: await chromium.executablePath(),
    headless: "shell",
    args: [...own, "--no-sandbox", ...flags],
  });
}

/** A page, with whatever it had to complain of. */
export interface OpenPage {
  readonly page: Page;
  readonly complaints: readonly string[];
}

/** Opens an address of the site. */
export async function openPage(browser: Browser, url: string): Promise<OpenPage> {
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) complaints.push(message.text());
  });
  await page.goto(url);
  return { page, complaints };
}

/** Waits until the page is in one of the states, and tells which, with what its status says. */
export async function reach(page: Page, ...states: string[]): Promise<{ state: string; status: string }> {
  await page.waitForFunction(
    (wanted) => wanted.includes(document.documentElement.dataset.state ?? ""),
    { timeout: 240_000 },
    [...states, "error"],
  );
  const state = await page.evaluate(() => document.documentElement.dataset.state ?? "");
  return { state, status: await text(page, "status") };
}

/** The text of an element by its data-testid. */
export async function text(page: Page, name: string): Promise<string> {
  return await page.$eval(`[data-testid=${name}]`, (found) => found.textContent ?? "");
}
