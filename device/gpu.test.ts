import { afterEach, describe, expect, test } from "vitest";
import { allocateBuffer, createBuffer, destroyBuffer } from "./buffers.ts";
import { AdapterUnavailableError, DeviceLostError, GpuValidationError, OutOfMemoryError } from "./errors.ts";
import { chosenAdapters, type Gpu, type GpuOptions, listAdapters, openGpu } from "./gpu.ts";
import { readBuffer } from "./readback.ts";
import { insideErrorScopes } from "./scopes.ts";
import { Timestamps } from "./timestamps.ts";

const adapters = await chosenAdapters(); // throws where there is none

const opened: Gpu[] = [];
afterEach(() => {
  for (const gpu of opened.splice(0)) gpu.close();
});

/** Squares each word in place, one lane a word. */
const SQUARE = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&x)) { x[id.x] = x[id.x] * x[id.x]; }
}`;

async function pipelineOf({ device }: Gpu, code: string): Promise<GPUComputePipeline> {
  return device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code }) },
  });
}

function dispatch({ device }: Gpu, pipeline: GPUComputePipeline, buffers: GPUBuffer[], timestamps?: Timestamps): void {
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass(timestamps && { timestampWrites: timestamps.writes(0) });
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(2);
  pass.end();
  timestamps?.resolve(encoder);
  device.queue.submit([encoder.finish()]);
}

test("the list begins with hardware where there is any, and each index finds its adapter", async () => {
  const list = await listAdapters();
  const kinds = list.map(({ kind }) => kind);
  expect(kinds).toEqual([...kinds].sort()); // "hardware" < "software"
  for (const { index, name } of list) {
    const gpu = await openGpu({ adapter: String(index) });
    opened.push(gpu);
    expect(gpu.adapter.name).toBe(name);
  }
});

test("a chosen adapter that nobody has leaves nothing to prove things on", async () => {
  await expect(chosenAdapters("voodoo")).rejects.toThrow(AdapterUnavailableError);
});

describe.each(adapters)("on $name", ({ name, limits: offered, features: had }) => {
  async function open(options: GpuOptions = {}): Promise<Gpu> {
    const gpu = await openGpu({ adapter: name, ...options });
    opened.push(gpu);
    return gpu;
  }
  const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

  test("a dispatch computes, and what it wrote comes back", async () => {
    const gpu = await open();
    const x = createBuffer(gpu, { size: 400, usage: storage, label: "x" });
    gpu.device.queue.writeBuffer(
      x,
      0,
      Uint32Array.from({ length: 100 }, (_, i) => i),
    );
    const pipeline = await pipelineOf(gpu, SQUARE);
    expect(await insideErrorScopes(gpu, () => dispatch(gpu, pipeline, [x])).error).toBeUndefined();
    const got = new Uint32Array((await readBuffer(gpu, x)).buffer);
    expect([...got]).toEqual(Array.from({ length: 100 }, (_, i) => i * i));
    expect(gpu.uncaptured).toEqual([]);
  });

  test("two devices on it work side by side", async () => {
    const [a, b] = [await open(), await open()];
    for (const gpu of [a, b]) {
      const buffer = createBuffer(gpu, { size: 4, usage: storage, label: "x" });
      gpu.device.queue.writeBuffer(buffer, 0, Uint8Array.of(1, 2, 3, 4));
      expect([...(await readBuffer(gpu, buffer))]).toEqual([1, 2, 3, 4]);
    }
  });

  describe("opening", () => {
    test("with the adapter's limits takes its buffers and not its bindings", async () => {
      const { limits } = await open();
      expect(limits.maxBufferSize).toBe(offered.maxBufferSize);
      expect(limits.maxStorageBufferBindingSize).toBe(offered.maxStorageBufferBindingSize);
      expect(limits.maxStorageBuffersPerShaderStage).toBe(8);
      expect(limits.maxComputeWorkgroupStorageSize).toBe(16384);
      expect(limits.maxComputeInvocationsPerWorkgroup).toBe(256);
    });

    test("with default limits and no features gives the smallest device that WebGPU promises", async () => {
      const { limits, features } = await open({ limits: "default", features: "none" });
      expect(limits.maxBufferSize).toBe(256 * 2 ** 20);
      expect(limits.maxStorageBufferBindingSize).toBe(128 * 2 ** 20);
      expect(limits.maxStorageBuffersPerShaderStage).toBe(8);
      expect(["shader-f16", "subgroups", "timestamp-query"].filter((it) => features.has(it))).toEqual([]);
    });

    test("takes the features it wants where the adapter has them", async () => {
      const wanted = ["shader-f16", "subgroups", "timestamp-query"];
      const { features } = await open();
      expect(wanted.filter((it) => features.has(it))).toEqual(wanted.filter((it) => had.includes(it)));
    });

    test("with limits of one's own gives those, and refuses more than there is in numbers", async () => {
      expect((await open({ limits: { maxBufferSize: 2 ** 28 } })).limits.maxBufferSize).toBe(2 ** 28);
      const tooMany = openGpu({ adapter: name, limits: { maxStorageBuffersPerShaderStage: 1000 } });
      await expect(tooMany).rejects.toThrow(
        `adapter "${name}": maxStorageBuffersPerShaderStage is ${offered.maxStorageBuffersPerShaderStage}, expected 1000`,
      );
      const misspelt = openGpu({ adapter: name, limits: { maxBuffersize: 1 } });
      await expect(misspelt).rejects.toThrow("limits: maxBuffersize is no limit of WebGPU");
    });
  });

  describe("buffers", () => {
    test("are counted while they live", async () => {
      const gpu = await open();
      const a = createBuffer(gpu, { size: 1024, usage: storage, label: "a" });
      const b = createBuffer(gpu, { size: 64, usage: storage, label: "b" });
      expect([gpu.memory.bytes, gpu.memory.buffers]).toEqual([1088, 2]);
      destroyBuffer(gpu, a);
      destroyBuffer(gpu, a);
      expect([gpu.memory.bytes, gpu.memory.buffers]).toEqual([64, 1]);
      await readBuffer(gpu, b); // its staging buffer is gone again
      expect([gpu.memory.bytes, gpu.memory.buffers]).toEqual([64, 1]);
      gpu.close();
      expect([gpu.memory.bytes, gpu.memory.buffers]).toEqual([0, 0]);
    });

    test("above the largest are refused in numbers before the driver sees them", async () => {
      const gpu = await open({ limits: "default" });
      const make = () => createBuffer(gpu, { size: 2 ** 29, usage: storage, label: "kv cache" });
      expect(make).toThrow(OutOfMemoryError);
      expect(make).toThrow(`kv cache: 512 MiB in one buffer, expected at most 256 MiB on "${name}"`);
      expect([gpu.memory.bytes, gpu.uncaptured.length]).toEqual([0, 0]);
    });

    test("that the driver has memory for are allocated, others refused without a trace", async () => {
      const gpu = await open();
      const good = await allocateBuffer(gpu, { size: 1024, usage: storage, label: "weights" });
      await expect(allocateBuffer(gpu, { size: 1024, usage: 0, label: "weights" })).rejects.toThrow(GpuValidationError);
      expect([gpu.memory.bytes, gpu.memory.buffers, gpu.uncaptured.length]).toEqual([1024, 1, 0]);
      destroyBuffer(gpu, good);
    });

    // SwiftShader counts a heap of its own and runs out of it before the machine does; nothing is written to these.
    test.runIf(name.includes("SwiftShader"))("that there is no memory for are a typed error in numbers", async () => {
      const gpu = await open();
      const allocated: GPUBuffer[] = [];
      const fill = async () => {
        for (let i = 0; i < 64; i++) {
          allocated.push(await allocateBuffer(gpu, { size: 2 ** 30, usage: storage, label: "kv cache" }));
        }
      };
      await expect(fill()).rejects.toThrow(OutOfMemoryError);
      expect(gpu.memory.buffers).toBe(allocated.length);
      for (const buffer of allocated) destroyBuffer(gpu, buffer);
      expect([gpu.memory.bytes, gpu.uncaptured.length]).toEqual([0, 0]);
      expect((await allocateBuffer(gpu, { size: 64, usage: storage, label: "x" })).size).toBe(64); // the device lives on
    });

    test.each([0, -4, 6, 1.5, Number.NaN, 2 ** 53])("of %d bytes are refused", async (size) => {
      const gpu = await open();
      expect(() => createBuffer(gpu, { size, usage: storage, label: "x" })).toThrow(/^x: a buffer of .* multiple of 4/);
    });
  });

  describe("error scopes", () => {
    test("make a call that WebGPU refused a GpuValidationError with the place", async () => {
      const gpu = await open();
      const wrong = () => gpu.device.createBuffer({ size: 16, usage: 0 });
      const error = await insideErrorScopes(gpu, wrong, "kv cache").error;
      expect(error).toBeInstanceOf(GpuValidationError);
      expect(error?.message).toMatch(/^kv cache: .*usage/i);
      expect(gpu.uncaptured).toEqual([]);
    });

    test("catch a shader that does not compile", async () => {
      const gpu = await open();
      const wrong = () => gpu.device.createShaderModule({ code: "fn main() { let x: u32 = 1.5; }" });
      expect(await insideErrorScopes(gpu, wrong).error).toBeInstanceOf(GpuValidationError);
    });

    test("give the value where nothing was wrong, and leave the stack as it was", async () => {
      const gpu = await open();
      const { value, error } = insideErrorScopes(gpu, () => 7);
      expect([value, await error]).toEqual([7, undefined]);
      await expect(gpu.device.popErrorScope()).rejects.toThrow(); // nothing is left on it
    });

    test("hand on what the work throws, and leave the stack as it was", async () => {
      const gpu = await open();
      const thrown = new Error("mine");
      const fail = () => {
        gpu.device.createBuffer({ size: 16, usage: 0 });
        throw thrown;
      };
      expect(() => insideErrorScopes(gpu, fail)).toThrow(thrown);
      await expect(gpu.device.popErrorScope()).rejects.toThrow();
    });

    test("of two synchronous pieces do not mix", async () => {
      const gpu = await open();
      const good = insideErrorScopes(gpu, () => gpu.device.createBuffer({ size: 16, usage: storage }));
      const bad = insideErrorScopes(gpu, () => gpu.device.createBuffer({ size: 16, usage: 0 }));
      expect([await good.error, (await bad.error)?.code]).toEqual([undefined, "GPU_VALIDATION"]);
    });

    test("are not needed for an error to be kept and told", async () => {
      const told: unknown[] = [];
      const gpu = await open({ onUncapturedError: (error) => told.push(error) });
      for (let i = 0; i < 20; i++) gpu.device.createBuffer({ size: 16, usage: 0 });
      await gpu.device.queue.onSubmittedWorkDone();
      expect(gpu.uncaptured[0]).toBeInstanceOf(GpuValidationError);
      expect([gpu.uncaptured.length, told.length]).toEqual([16, 20]);
    });
  });

  describe("reading back", () => {
    test("gives any range, aligned or not", async () => {
      const gpu = await open();
      const bytes = Uint8Array.from({ length: 20 }, (_, i) => i);
      const buffer = createBuffer(gpu, { size: 20, usage: storage, label: "x" });
      gpu.device.queue.writeBuffer(buffer, 0, bytes);
      for (const [offset, size] of [
        [0, 20],
        [1, 1],
        [3, 6],
        [17, 3],
        [20, 0],
      ] as const) {
        expect(await readBuffer(gpu, buffer, offset, size)).toEqual(bytes.slice(offset, offset + size));
      }
      await expect(readBuffer(gpu, buffer, 16, 8)).rejects.toThrow("x: bytes 16 to 24, expected a range within 20");
    });

    test("may overlap with itself", async () => {
      const gpu = await open();
      const buffer = createBuffer(gpu, { size: 8, usage: storage, label: "x" });
      gpu.device.queue.writeBuffer(buffer, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
      const reads = await Promise.all(Array.from({ length: 8 }, (_, i) => readBuffer(gpu, buffer, i, 1)));
      expect(reads.map(([value]) => value)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    });

    test("of a buffer that cannot be copied says so, rather than giving zeros", async () => {
      const gpu = await open();
      const buffer = createBuffer(gpu, { size: 16, usage: GPUBufferUsage.STORAGE, label: "pages" });
      await expect(readBuffer(gpu, buffer)).rejects.toThrow(GpuValidationError);
      await expect(readBuffer(gpu, buffer)).rejects.toThrow(/^read pages: .*CopySrc/i);
      expect(gpu.memory.buffers).toBe(1);
    });

    test("from a device that was lost is a DeviceLostError", async () => {
      const gpu = await open();
      const buffer = createBuffer(gpu, { size: 16, usage: storage, label: "x" });
      const before = readBuffer(gpu, buffer);
      before.catch(() => undefined); // it may still come through, or be lost on the way
      gpu.device.destroy();
      await expect(readBuffer(gpu, buffer)).rejects.toThrow(DeviceLostError);
      await before.catch((error) => expect(error).toBeInstanceOf(DeviceLostError));
    });
  });

  describe("loss", () => {
    test("by destroying is told once, with its reason", async () => {
      const gpu = await open();
      const other = await open();
      gpu.device.destroy();
      expect((await gpu.lost).reason).toBe("destroyed");
      const state = await Promise.race([other.lost, Promise.resolve("alive")]);
      expect(state).toBe("alive");
    });

    test("by closing is the same, and closing twice is fine", async () => {
      const gpu = await open();
      gpu.close();
      gpu.close();
      expect(await gpu.lost).toMatchObject({ reason: "destroyed" });
    });
  });

  describe("timestamps", () => {
    const supported = had.includes("timestamp-query");

    test.runIf(supported)("measure a dispatch in nanoseconds", async () => {
      const gpu = await open();
      const x = createBuffer(gpu, { size: 512, usage: storage, label: "x" });
      const pipeline = await pipelineOf(gpu, SQUARE);
      const launch = (into?: Timestamps) => insideErrorScopes(gpu, () => dispatch(gpu, pipeline, [x], into)).error;
      expect(await launch()).toBeUndefined(); // the first one compiles
      const timestamps = new Timestamps(gpu, 2);
      const begin = performance.now();
      expect(await launch(timestamps)).toBeUndefined();
      const [measured = Number.NaN, unused] = await timestamps.read();
      expect(measured).toBeGreaterThan(0);
      expect(measured).toBeLessThan((performance.now() - begin) * 1e6);
      expect(unused).toBe(0);
      timestamps.destroy();
      expect(gpu.memory.buffers).toBe(1);
      expect(() => timestamps.writes(2)).toThrow("timestamps: span 2, expected 0 to 1");
      expect(() => new Timestamps(gpu, 2049)).toThrow("timestamps: 2049 spans, expected 1 to 2048");
    });

    test("are refused by name on a device without them", async () => {
      const gpu = await open({ features: "none" });
      expect(() => new Timestamps(gpu, 1)).toThrow(`timestamps: "${name}" was opened without timestamp-query`);
    });
  });
});
