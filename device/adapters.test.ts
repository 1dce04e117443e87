import { describe, expect, test } from "vitest";
import { type AdapterDescription, inOrder, readLimits, describe as say, select } from "./adapters.ts";
import { AdapterUnavailableError } from "./errors.ts";
import { parseAdapterList } from "./node.ts";

const limits = { maxBufferSize: 256 } as unknown as AdapterDescription["limits"];

/** An adapter as a platform would have found it; only what order and choice look at. */
function found(name: string, kind: AdapterDescription["kind"] = "software") {
  const words = { name, vendor: "", architecture: "", driver: "", origin: "system" as const };
  const description = {
    ...words,
    kind,
    features: [],
    languageFeatures: [],
    limits,
    subgroupMinSize: 0,
    subgroupMaxSize: 0,
  };
  return { description, request: () => Promise.reject(new Error(name)) };
}

const llvmpipe = found("llvmpipe (LLVM 15.0.6, 256 bits)");
const swiftShader = found("SwiftShader Device (Subzero)");
const radeon = found("AMD Radeon RX 7900 XT", "hardware");
const remedy = "run `npm i -D webgpu`";

function choose(selector: string | undefined, adapters = inOrder([swiftShader, llvmpipe, radeon])): string {
  return select({ adapters, notes: [], remedy }, selector).description.name;
}

describe("the order of choice", () => {
  test("is hardware, lavapipe, SwiftShader, then other software", () => {
    const order = inOrder([found("softpipe"), swiftShader, llvmpipe, radeon]).map(({ description }) => description);
    expect(order.map(({ name }) => name.split(" ")[0])).toEqual(["AMD", "llvmpipe", "SwiftShader", "softpipe"]);
    expect(order.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
  });

  test("keeps equals as the platform gave them", () => {
    const [first, second] = inOrder([found("b", "hardware"), found("a", "hardware")]);
    expect([first?.description.name, second?.description.name]).toEqual(["b", "a"]);
  });
});

describe("the selector", () => {
  test.each([
    [undefined, "AMD Radeon RX 7900 XT"],
    [" ", "AMD Radeon RX 7900 XT"],
    ["LLVMpipe", "llvmpipe (LLVM 15.0.6, 256 bits)"],
    ["lavapipe", "llvmpipe (LLVM 15.0.6, 256 bits)"],
    ["swiftshader", "SwiftShader Device (Subzero)"],
    ["1", "llvmpipe (LLVM 15.0.6, 256 bits)"],
    ["7900", "AMD Radeon RX 7900 XT"], // no such index, so part of a name
  ])("%o means %s", (selector, name) => expect(choose(selector)).toBe(name));

  test("that matches nothing is refused with the names found", () => {
    expect(() => choose("voodoo")).toThrow(AdapterUnavailableError);
    expect(() => choose("voodoo")).toThrow(
      'adapter: no adapter is named "voodoo", expected part of a name or an index of: 0 AMD Radeon RX 7900 XT, ' +
        "1 llvmpipe (LLVM 15.0.6, 256 bits), 2 SwiftShader Device (Subzero); run `ingle doctor` to see them",
    );
  });

  test("on a machine without adapters says why there is none and what to install", () => {
    const search = { adapters: [], notes: ["npm's x is not installed"], remedy };
    expect(() => select(search, "swiftshader")).toThrow(
      "webgpu: no adapter found, expected a GPU or a software driver; npm's x is not installed; run `npm i -D webgpu`",
    );
  });
});

describe("a description", () => {
  const allLimits = {
    maxBindGroups: 4,
    maxBufferSize: 256,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupSizeX: 256,
    maxComputeWorkgroupSizeY: 256,
    maxComputeWorkgroupSizeZ: 64,
    maxComputeWorkgroupStorageSize: 16384,
    maxComputeWorkgroupsPerDimension: 65535,
    maxStorageBufferBindingSize: 128,
    maxStorageBuffersPerShaderStage: 8,
    maxUniformBufferBindingSize: 65536,
    maxUniformBuffersPerShaderStage: 12,
    minStorageBufferOffsetAlignment: 256,
    minUniformBufferOffsetAlignment: 256,
  };

  function adapter(info: Partial<GPUAdapterInfo>): GPUAdapter {
    const whole = { vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false, ...info };
    return { info: whole, features: new Set(["subgroups", "shader-f16"]), limits: allLimits } as unknown as GPUAdapter;
  }

  test.each<[string, Partial<GPUAdapterInfo>, AdapterDescription["kind"]]>([
    ["a GPU", { vendor: "nvidia", architecture: "hopper" }, "hardware"],
    ["what the browser calls a fallback", { vendor: "x", isFallbackAdapter: true }, "software"],
    ["SwiftShader by its architecture", { vendor: "google", architecture: "swiftshader" }, "software"],
    ["llvmpipe by its description", { description: "llvmpipe: Mesa 25" }, "software"],
    ["Windows' renderer", { description: "Microsoft Basic Render Driver" }, "software"],
  ])("of %s is of the right kind", (_, info, kind) => expect(say(adapter(info), "browser").kind).toBe(kind));

  test("has a name even where the browser hides all of them", () => {
    expect(say(adapter({}), "browser").name).toBe("unnamed adapter");
    expect(say(adapter({ vendor: "apple", architecture: "metal-3" }), "browser").name).toBe("apple metal-3");
    expect(say(adapter({ vendor: "apple", description: "Apple M1" }), "browser").name).toBe("Apple M1");
  });

  test("has plain limits and sorted features", () => {
    const { limits: plain, features } = say(adapter({}), "system", "x");
    expect(plain).toEqual(allLimits);
    expect(features).toEqual(["shader-f16", "subgroups"]);
  });

  test("is refused when limits that ingle counts with are missing", () => {
    expect(() => readLimits({ maxBufferSize: 1 } as unknown as GPUSupportedLimits)).toThrow(
      "adapter: it tells only the limits maxBufferSize",
    );
  });
});

describe("Dawn's list of adapters", () => {
  const message = [
    "no suitable backends found",
    "Available adapters:",
    " * backend: 'd3d11', name: 'GeForce'",
    " * backend: 'd3d12', name: 'GeForce'",
    " * backend: 'null', name: 'Null backend'",
    " * backend: 'vulkan', name: 'O'Neill (tm) GPU'",
  ].join("\n");

  test("is read name by name, the best backend of each, quotes in names included", () => {
    expect(parseAdapterList(message)).toEqual([
      { name: "GeForce", backend: "d3d12" },
      { name: "O'Neill (tm) GPU", backend: "vulkan" },
    ]);
  });

  test("may be empty", () => expect(parseAdapterList("")).toEqual([]));
});
