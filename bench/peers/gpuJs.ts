/** gpu.js as the naive matmul that a page's author would write, beside ingle's, in Chromium on SwiftShader. */
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { installedFile } from "./installed.ts";

/** ms a matmul of 3072 × 576 by rows of x. */
export interface MatmulTimes {
  readonly rows: number;
  readonly ingleMs: number;
  readonly naiveMs: number;
  readonly gpuJsMs: number;
}

const ROWS = [1, 8] as const;
/** What npm's Chromium suggests for machines without a GPU, and what keeps WebGPU away. */
const DROPPED = /^--(single-process|in-process-gpu|no-zygote|use-gl|use-angle|disable-gpu|headless)/;

/** Measures in a page of its own. Throws BenchError where gpu.js is not installed. */
export async function measureMatmuls(): Promise<MatmulTimes[]> {
  const gpuJs = readFileSync(installedFile("gpu.js", "dist/gpu-browser.min.js"), "utf8");
  const files = new Map([
    ["/", { type: "text/html", text: '<script src="gpu.js"></script><script type="module" src="page.js"></script>' }],
    ["/gpu.js", { type: "text/javascript", text: gpuJs }],
    ["/page.js", { type: "text/javascript", text: await bundle() }],
  ]);
  const server = createServer(({ url = "/" }, response) => {
    const file = files.get(url);
    if (file === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { "content-type": `${file.type}; charset=utf-8` }).end(file.text);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("server: has no port, expected one");
  try {
    return await inPage(`http://127.0.0.1:${address.port}/`);
  } finally {
    server.close();
  }
}

async function inPage(url: string): Promise<MatmulTimes[]> {
  const [{ default: chromium }, { default: puppeteer }] = await Promise.all([
    import("@sparticuz/chromium"),
    import("puppeteer-core"),
  ]);
  const browser = await puppeteer.launch({
    executablePath: await chromium.executablePath(),
    headless: "shell",
    args: [
      ...chromium.args.filter((flag) => !DROPPED.test(flag)),
      "--no-sandbox",
      "--enable-unsafe-webgpu",
      "--use-webgpu-adapter=swiftshader",
    ],
  });
  try {
    const page = await browser.newPage();
    await page.goto(url);
    await page.waitForFunction("globalThis.measureIngle !== undefined && globalThis.GPU !== undefined");
    const times: MatmulTimes[] = [];
    for (const rows of ROWS) {
      const both = `(async () => ({ ...(await measureIngle(${rows})), ...(await measureGpuJs(${rows})) }))()`;
      times.push({ rows, ...((await page.evaluate(both)) as Omit<MatmulTimes, "rows">) });
    }
    return times;
  } finally {
    await browser.close();
  }
}

/** The page's script, of the sources or of dist/ alike. */
async function bundle(): Promise<string> {
  const { build } = await import("rolldown");
  const here = fileURLToPath(import.meta.url);
  const { output } = await build({
    input: join(dirname(here), `gpuJsPage${extname(here)}`),
    platform: "browser",
    tsconfig: false,
    write: false,
    output: { format: "esm", codeSplitting: false },
    logLevel: "warn",
  });
  return output[0].code;
}
