/** `ingle/kernels`: the proof of the kernels on an adapter, for Node, CI and pages. */
export type { AdapterDescription } from "../device/adapters.ts";
export { listAdapters } from "../device/gpu.ts";
export { allCases, findCase, namedCases } from "./cases.ts";
export {
  type ConformanceOptions,
  type ConformanceReport,
  runConformance,
  SUITES,
  type Suite,
} from "./conformance.ts";
export type { Case, Comparison, Verdict } from "./testbed.ts";
