/** The life of a process with a device in it, each in a child of its own: what is tested kills the process when it fails. */
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chosenAdapters } from "./gpu.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FULL = process.env.INGLE_SUITE === "full";
const REPETITIONS = FULL ? 50 : 5;
const HEAVY = FULL ? 20 : 2;

const adapters = await chosenAdapters();
let folder = "";

/** Compiles device/ as a release would be: children have no TypeScript, and see the rewritten imports. */
beforeAll(async () => {
  await mkdir(join(ROOT, "node_modules", ".cache"), { recursive: true });
  folder = await mkdtemp(join(ROOT, "node_modules", ".cache", "device-")); // below the project: it imports packages
  const files = ["gpu", "node", "browser", "readback"].map((name) => `device/${name}.ts`);
  const flags =
    "--ignoreConfig --rootDir . --target ES2023 --lib ES2023 --module NodeNext --types @webgpu/types,node --skipLibCheck " +
    "--rewriteRelativeImportExtensions --strict --outDir";
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  const args = [tsc, ...files, "device/tarFs.d.ts", ...flags.split(" "), folder];
  await promisify(execFile)(process.execPath, args, { cwd: ROOT });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly text: string;
  /** From the child's last line to its end. */
  readonly exitMs: number;
}

/** Runs a module that begins with `openGpu`, `double` and `readBuffer` imported. */
async function child(source: string, env: Readonly<Record<string, string | undefined>> = {}): Promise<Ended> {
  const file = join(folder, `child-${Math.random().toString(36).slice(2)}.mjs`);
  await writeFile(file, PRELUDE + source);
  return new Promise((resolve, reject) => {
    const process_ = spawn(process.execPath, ["--expose-gc", file], { env: { ...process.env, ...env } });
    let text = "";
    let last = performance.now();
    const timer = setTimeout(() => process_.kill("SIGKILL"), 60_000);
    process_.stdout.on("data", (chunk) => {
      text += chunk;
      last = performance.now();
    });
    process_.stderr.on("data", (chunk) => {
      text += chunk;
    });
    process_.on("error", reject);
    process_.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, text, exitMs: performance.now() - last });
    });
  });
}

const PRELUDE = `
import { setTimeout as pause } from "node:timers/promises";
import { openGpu } from "./device/gpu.js";
import { readBuffer } from "./device/readback.js";

/** Doubles 0..63 on the GPU and says whether they came back right. */
async function double(gpu) {
  const code = "@group(0) @binding(0) var<storage, read_write> x: array<u32>;"
    + "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { x[id.x] *= 2; }";
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const buffer = gpu.device.createBuffer({ size: 256, usage });
  gpu.device.queue.writeBuffer(buffer, 0, Uint32Array.from({ length: 64 }, (_, i) => i));
  const module = gpu.device.createShaderModule({ code });
  const pipeline = await gpu.device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  const bindGroup = gpu.device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0), entries: [{ binding: 0, resource: { buffer } }],
  });
  const encoder = gpu.device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(1);
  pass.end();
  gpu.device.queue.submit([encoder.finish()]);
  const got = new Uint32Array((await readBuffer(gpu, buffer)).buffer);
  console.log(got.every((value, i) => value === 2 * i) ? "right" : "wrong");
}
async function collect() { gc(); await pause(5); gc(); await pause(5); }
`;

describe.each(adapters)("on $name", ({ name }) => {
  const open = `await openGpu({ adapter: ${JSON.stringify(name)} })`;

  /** Runs the same child again and again; what is returned is what went otherwise than it should. */
  async function failures(repetitions: number, source: string, exitWithinMs: number): Promise<Ended[]> {
    const failed: Ended[] = [];
    for (let i = 0; i < repetitions; i++) {
      const ended = await child(source);
      const right = ended.code === 0 && /^right$/m.test(ended.text) && !/^wrong$/m.test(ended.text);
      if (!right || ended.exitMs > exitWithinMs) failed.push(ended);
    }
    return failed;
  }

  test(`garbage collections leave an open device working, ${REPETITIONS} of ${REPETITIONS}`, {
    timeout: 600_000,
  }, async () => {
    const source = `
      async function inside() { return ${open}; }
      const gpu = await inside();
      await collect();
      await double(gpu);
      await collect();
      await double(gpu);
      gpu.close();`;
    expect(await failures(REPETITIONS, source, 1000)).toEqual([]);
  });

  test(`the process ends by itself when the device is never closed, ${REPETITIONS} of ${REPETITIONS}`, {
    timeout: 600_000,
  }, async () => {
    expect(await failures(REPETITIONS, `const gpu = ${open}; await double(gpu); await collect();`, 1000)).toEqual([]);
  });

  test("a closed device can be collected, used and opened again", { timeout: 60_000 }, async () => {
    const source = `
      for (let i = 0; i < 3; i++) {
        const gpu = ${open};
        await double(gpu);
        gpu.close();
        gpu.close();
        await collect();
        gpu.device.createBuffer({ size: 16, usage: GPUBufferUsage.STORAGE });
        console.log((await gpu.lost).reason);
      }`;
    const { code, text } = await child(source);
    expect({ code, reasons: text.match(/^destroyed$/gm)?.length, right: text.match(/^right$/gm)?.length }).toEqual({
      code: 0,
      reasons: 3,
      right: 3,
    });
  });

  test(`seconds of work and a GiB of garbage before the first dispatch do no harm, ${HEAVY} of ${HEAVY}`, {
    timeout: 600_000,
  }, async () => {
    const source = `
      const gpu = ${open};
      for (let i = 0; i < 16; i++) new Uint8Array(2 ** 26).fill(i);
      for (const end = performance.now() + 2000; performance.now() < end; ) Math.sqrt(end);
      await double(gpu);`;
    expect(await failures(HEAVY, source, 1000)).toEqual([]);
  });
});

describe.runIf(process.platform === "linux" && process.arch === "x64")("npm's SwiftShader", () => {
  const absent = { VK_DRIVER_FILES: "/nonexistent", VK_ICD_FILENAMES: "/nonexistent", INGLE_ADAPTER: undefined };
  const source = `
    const gpu = await openGpu();
    console.log(gpu.adapter.name, gpu.adapter.origin, gpu.adapter.index);
    await double(gpu);
    console.log("left", process.env.VK_DRIVER_FILES);`;

  test("is taken where no driver is installed, and the environment is put back", async () => {
    const { code, text } = await child(source, absent);
    expect(text).toMatch(/^SwiftShader Device \(Subzero\) npm 0\nright\nleft \/nonexistent$/m);
    expect(code).toBe(0);
  });

  test("brings its own Vulkan loader where the system has none", async () => {
    // An empty file is found first and is no library: dlopen fails as it does where there is no loader.
    const hidden = join(folder, "no-loader");
    await mkdir(hidden, { recursive: true });
    await writeFile(join(hidden, "libvulkan.so.1"), "");
    const { code, text } = await child(source, { ...absent, XDG_RUNTIME_DIR: undefined, LD_LIBRARY_PATH: hidden });
    expect(text).toMatch(/^SwiftShader Device \(Subzero\) npm 0\nright$/m);
    expect(code).toBe(0);
  });

  test("INGLE_ADAPTER chooses it, and a name that nobody has is refused with those found", async () => {
    const chosen = await child(source, { INGLE_ADAPTER: "swiftSHADER" });
    expect(chosen.text).toMatch(/^SwiftShader Device \(Subzero\) npm \d\nright$/m);
    const refused = await child(source, { INGLE_ADAPTER: "voodoo" });
    expect(refused.text).toContain('no adapter is named "voodoo", expected part of a name or an index of: 0 ');
    expect(refused.code).not.toBe(0);
  });
});
