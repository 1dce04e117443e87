/** The conditions of a measurement: whatever else a stranger needs to get the same numbers. */
import { arch, cpus, platform, release } from "node:os";
import type { AdapterDescription } from "../device/adapters.ts";
import { bytes } from "../device/buffers.ts";
import type { Gpu } from "../device/gpu.ts";
import type { Proof } from "./gate.ts";
import type { ReadRate } from "./read_rate.ts";
import type { Clock } from "./timing.ts";

/** Of every measurement; plain data, named as JSON has it. */
export interface Conditions {
  readonly date: string;
  readonly ingle: string;
  readonly node: string;
  readonly platform: string;
  readonly cpu: string;
  readonly adapter: Pick<AdapterDescription, "name" | "vendor" | "architecture" | "driver" | "kind" | "origin">;
  /** What the device was made with. */
  readonly features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
  /** Switches of the WebGPU implementation: ingle sets none. */
  readonly toggles: readonly string[];
  readonly checks: Proof;
  readonly bandwidth: {
    readonly bytes_per_second: number;
    readonly bytes: number;
    readonly samples_ms: readonly number[];
    readonly clock: Clock;
  };
}

/** Limits that decide what kernels and batches do. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
] as const;

/** What holds on this machine now. */
export function conditions(gpu: Gpu, ingle: string, checks: Proof, rate: ReadRate): Conditions {
  const { name, vendor, architecture, driver, kind, origin } = gpu.adapter;
  const processors = cpus();
  return {
    date: new Date().toISOString(),
    ingle,
    node: process.version,
    platform: `${platform()} ${arch()} ${release()}`,
    cpu: `${processors.length} × ${processors[0]?.model.trim() ?? "unknown"}`,
    adapter: { name, vendor, architecture, driver, kind, origin },
    features: [...gpu.features].sort(),
    limits: Object.fromEntries(LIMITS.map((limit) => [limit, gpu.limits[limit]])),
    toggles: [],
    checks,
    bandwidth: {
      bytes_per_second: rate.bytesPerSecond,
      bytes: rate.bytes,
      samples_ms: rate.samplesMs,
      clock: rate.clock,
    },
  };
}

/** The same in lines for people. */
export function conditionLines({
  adapter,
  features,
  limits,
  toggles,
  node,
  ingle,
  platform,
  cpu,
  date,
  checks,
  bandwidth,
}: Conditions): string[] {
  const driver = adapter.driver === "" || adapter.driver === adapter.name ? "" : ` · ${adapter.driver}`;
  const rate = (bandwidth.bytes_per_second / 1e9).toFixed(1);
  const bindings = bytes(limits.maxStorageBufferBindingSize ?? Number.NaN);
  const buffers = `buffers of ${bytes(limits.maxBufferSize ?? Number.NaN)}, bindings of ${bindings}, ${limits.maxStorageBuffersPerShaderStage} a stage`;
  return [
    `${adapter.name} (${adapter.kind})${driver} · ${features.length === 0 ? "no features" : features.join(", ")}`,
    `${buffers} · ${toggles.length === 0 ? "no toggles" : toggles.join(", ")}`,
    `ingle ${ingle} · node ${node} · ${platform} · ${cpu} · ${date}`,
    `${checks.cases} kernel cases passed, ${checks.hash.slice(0, 16)} · reads ${rate} GB/s, the median of ${bandwidth.samples_ms.length} by ${bandwidth.clock === "timestamps" ? "the GPU's clock" : "the clock of the CPU"}`,
  ];
}
