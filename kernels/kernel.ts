/**
 * `kernel()` turns a description into WGSL declarations and a typed launch.
 *
 * A kernel's author writes the body only. The names in `reads`, `writes` and `params` are the names in the WGSL and
 * the keys of a launch, so that a misspelt or forgotten one does not compile.
 */
import type { CompiledKernel } from "../device/pipelines.ts";
import type { Bound, Grid, Recorder } from "../device/program.ts";

/** WebGPU grants 8 storage buffers a stage everywhere; Node's adapters offer more, and a page would then fail. */
const MAX_STORAGE_BUFFERS = 8;

/** Kernels see to uniform control flow themselves: the compiler's proof gives up at loop bounds from buffers. */
const SUBGROUPS = "enable subgroups;\ndiagnostic(off, subgroup_uniformity);\n";
const F16 = "enable f16;\n";

/** A param that says "none": no bias, no delta. */
export const NONE = 0xffff_ffff;

/** What a kernel's author writes. */
export interface KernelSpec<
  Reads extends string,
  Writes extends string,
  Params extends string,
  Windows extends string,
> {
  /** Unique among all kernels: the family's, then what tells the variant from others, a word each. */
  readonly name: string;
  /** Storage buffers by the WGSL type of their elements: `x: "vec4f"` is `x: array<vec4f>`. */
  readonly reads: Readonly<Record<Reads, string>>;
  readonly writes: Readonly<Record<Writes, string>>;
  /** Uniform buffers, besides the params, by their WGSL type; null as of params. */
  readonly windows?: Readonly<Record<Windows, string | null>>;
  /** null: of other variants of the kernel, which have one launch for all; not declared. */
  readonly params: Readonly<Record<Params, "f32" | "u32" | null>>;
  /** Lanes a workgroup; `WG` in the code. */
  readonly workgroup: number;
  /** Whether the code has subgroup operations: the device must have the feature. */
  readonly subgroups?: boolean;
  /** Whether it computes in f16: the device must have shader-f16. */
  readonly f16?: boolean;
  readonly code: string;
}

/** What one launch binds and passes: every declared name, no other. */
export interface KernelLaunch<Buffers extends string, Params extends string> {
  readonly buffers: Readonly<Record<Buffers, Bound>>;
  readonly params: Readonly<Record<Params, number>>;
  readonly grid: Grid;
}

/** A kernel that can be launched. */
export interface Kernel<Buffers extends string, Params extends string> {
  readonly name: string;
  readonly compiled: CompiledKernel;
  /** Records one launch. `label` says what it does in the model. */
  launch(recorder: Recorder, launch: KernelLaunch<Buffers, Params>, label?: string): void;
}

/** A kernel's name without those of its variants. */
export const familyOf = (name: string): string => name.split(" ")[0] ?? name;

/** The kernel of a description. Throws RangeError for more than 8 storage buffers. */
export function kernel<R extends string, W extends string, P extends string, U extends string = never>(
  spec: KernelSpec<R, W, P, U>,
): Kernel<R | W | U, P> {
  const stored = [...keys(spec.reads), ...keys(spec.writes)];
  if (stored.length > MAX_STORAGE_BUFFERS)
    throw new RangeError(`${spec.name}: ${stored.length} storage buffers, at most ${MAX_STORAGE_BUFFERS}`);
  const windows = spec.windows === undefined ? [] : declared(spec.windows);
  const names = [...stored, ...windows];
  const compiled: CompiledKernel = {
    name: spec.name,
    code: (spec.subgroups === true ? SUBGROUPS : "") + (spec.f16 === true ? F16 : "") + declarations(spec) + spec.code,
    bindings: [
      "uniform",
      ...keys(spec.reads).map(() => "read-only-storage" as const),
      ...keys(spec.writes).map(() => "storage" as const),
      ...windows.map(() => "uniform" as const),
    ],
  };
  return {
    name: spec.name,
    compiled,
    launch(recorder, { buffers, params, grid }, label = spec.name) {
      const bound = names.map((name) => buffers[name]);
      recorder.dispatch({ kernel: compiled, buffers: bound, params: packParams(spec.params, params), grid }, label);
    },
  };
}

function keys<K extends string>(record: Readonly<Record<K, unknown>>): K[] {
  return Object.keys(record) as K[];
}

function declarations({
  reads,
  writes,
  windows = {},
  params,
  workgroup,
}: KernelSpec<string, string, string, string>): string {
  const fields = declared(params).map((name) => `  ${name}: ${params[name]},`);
  const buffers = [
    ...Object.entries(reads).map(([name, type]) => `var<storage, read> ${name}: array<${type}>;`),
    ...Object.entries(writes).map(([name, type]) => `var<storage, read_write> ${name}: array<${type}>;`),
    ...declared(windows).map((name) => `var<uniform> ${name}: ${windows[name]};`),
  ];
  return `const WG = ${workgroup}u;
const NONE = 0xffffffffu;
struct Params {
${fields.join("\n")}
}
@group(0) @binding(0) var<uniform> params: Params;
${buffers.map((line, index) => `@group(0) @binding(${index + 1}) ${line}`).join("\n")}
`;
}

/** What is not another variant's. */
const declared = <P extends string>(of: Readonly<Record<P, string | null>>): P[] =>
  keys(of).filter((name) => of[name] !== null);

function packParams<P extends string>(
  spec: Readonly<Record<P, "f32" | "u32" | null>>,
  values: Readonly<Record<P, number>>,
) {
  const names = declared(spec);
  const words = new Uint32Array(Math.ceil(names.length / 4) * 4);
  const floats = new Float32Array(words.buffer);
  names.forEach((name, index) => {
    const value = values[name];
    if (spec[name] === "f32") floats[index] = value;
    else if (Number.isInteger(value) && value >= 0 && value <= NONE) words[index] = value;
    else throw new RangeError(`param ${name}: ${value}, expected an integer from 0 to 2^32 - 1`);
  });
  return words;
}

/** Makes variants of a kernel once each: `make` runs for a new name only. */
export function variants<Key extends readonly (string | number | boolean)[], K>(
  make: (...key: Key) => K,
): (...key: Key) => K {
  const made = new Map<string, K>();
  return (...key) => {
    const name = key.join(" ");
    const known = made.get(name) ?? make(...key);
    made.set(name, known);
    return known;
  };
}
