// What AMD's compiler makes of the decode kernels, without a GPU: registers, spills, scratch, vector instructions a weight, loads.
// `npm run build && node scripts/isa/report.mjs [FILTER]`; needs gcc, libvulkan-dev and Mesa's radv. A Markdown table on stdout:
// where the three families differ, a cell has navi31's figure, then navi21's and vega10's.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const FAMILIES = ["navi31", "navi21", "vega10"];
/** Of one row, as GPUs have them: matmuls of the usual layouts, attention, the sampler. */
const DECODE =
  "^(norm_matmul|matmul_residual|norm_gate_up) (affine4|affine8|f16) M=1( own sums)? wide$|^attention.* head_dim<=64( wide)?$|^attention_reduce|^sample|^embed affine8";

/** Makes every pipeline whose name the filter matches, one after the other, and writes their names. */
async function compile(filter, file) {
  const dist = join(HERE, "../../dist");
  const { openGpu } = await import(`${dist}/device/gpu.js`);
  const { PipelineCache } = await import(`${dist}/device/pipelines.js`);
  const { everyKernel } = await import(`${dist}/kernels/kernelList.js`);
  const gpu = await openGpu({ adapter: "0" });
  const pipelines = new PipelineCache(gpu);
  const kernels = everyKernel().filter(({ name }) => new RegExp(filter).test(name));
  for (const kernel of kernels) await pipelines.get(kernel); // in this order the layer writes
  writeFileSync(file, JSON.stringify(kernels.map(({ name }) => name)));
  process.exit(0);
}

/** The lines of each pipeline on a family: its statistics and its assembly. */
function compiled(family, filter, folder) {
  const [out, names] = [join(folder, `${family}.txt`), join(folder, `${family}.json`)];
  const run = spawnSync(
    "bash",
    [join(HERE, "isa.sh"), out, process.execPath, fileURLToPath(import.meta.url), "--compile", filter, names],
    { env: { ...process.env, FAMILY: family, ISA_TEXT: "1" }, encoding: "utf8" },
  );
  if (run.status !== 0) throw new Error(`isa.sh: exit code ${run.status}, expected 0: ${run.stderr.slice(-2000)}`);
  const parts = readFileSync(out, "utf8").split(/^(?=\{"entry")/m);
  return JSON.parse(readFileSync(names, "utf8")).map((name, i) => {
    const [head = "{}", ...lines] = (parts[i] ?? "").split("\n");
    return { name, family, stats: JSON.parse(head), lines };
  });
}

/** Loops as ranges of lines: a label, and the last branch back to it. */
function loopsOf(lines) {
  const labels = new Map(lines.flatMap((line, i) => (/^(BB\d+):/.test(line) ? [[line.split(":")[0], i]] : [])));
  const ends = new Map();
  lines.forEach((line, i) => {
    const target = /^\ts_c?branch\w* (BB\d+)/.exec(line)?.[1];
    const begin = labels.get(target);
    if (begin !== undefined && begin <= i) ends.set(begin, i);
  });
  return [...ends].map(([begin, end]) => ({ begin, end }));
}

const count = (lines, { begin, end }, pattern) =>
  lines.slice(begin, end + 1).filter((line) => pattern.test(line)).length;
const VALU = /^\tv_/;
const WIDE = /^\t(buffer|global)_load_(b128|dwordx4)\b/;
const LOAD = /^\t(buffer|global)_load_/;
/** Weights of a 128-bit load. */
const PER_LOAD = { affine4: 32, affine8: 16, f16: 8 };

/** Loads of 128 bits that a row of x takes for eight columns of four rows; where workgroups have 8 lanes, x comes by scalar loads. */
const X_LOADS = { wide: 2, halves: 1, bytes: 0 };
const xLoads = (name) => (X_LOADS[name.split(" ").at(-1)] ?? 0) * Number(/ M=(\d)/.exec(name)[1]);

/** Weights of a loop with so many 128-bit loads. */
const weightsIn = (loads, name, layout) => (loads * 32) / (32 / PER_LOAD[layout] + xLoads(name));

/** Narrow loads that are of x: bytes, and Σ x where the loop has a whole run of 32 columns and sums are stored. */
function narrowOfX(name, layout, weights) {
  const rows = Number(/ M=(\d)/.exec(name)[1]);
  if (name.endsWith(" bytes")) return (rows * weights) / 32;
  return name.endsWith(" wide") && layout !== "f16" && !name.includes(" own sums") && weights >= 128 ? rows : 0;
}

/**
 * Vector instructions a weight, and loads of weights that are narrower than 128 bits, in the loops that decode. Those of the loops
 * around (scales, sums) are shared by the four trips that a group of 32 columns takes; of branches, both sides are counted.
 */
function weightsOf({ name, lines }) {
  const layout = Object.keys(PER_LOAD).find((it) => name.includes(` ${it} `));
  if (layout === undefined || !/matmul|gate_up/.test(name)) return undefined;
  const loops = loopsOf(lines);
  const inside = (a, b) => a !== b && a.begin >= b.begin && a.end <= b.end;
  const inner = loops.filter(
    (it) => !loops.some((other) => inside(other, it)) && count(lines, it, WIDE) > 0 && count(lines, it, VALU) > 12,
  );
  if (inner.length === 0) return undefined;
  const each = inner.map((loop) => {
    const around = loops.filter((it) => inside(loop, it)).sort((a, b) => a.end - a.begin - (b.end - b.begin));
    const weights = weightsIn(count(lines, loop, WIDE), name, layout);
    const valu = count(lines, loop, VALU);
    const outer = around.at(-1) ?? loop;
    const rest = count(lines, outer, VALU) - valu;
    return {
      inner: valu / weights,
      all: (valu + rest / Math.max(1, 128 / weights)) / weights,
      narrow: count(lines, loop, LOAD) - count(lines, loop, WIDE) - narrowOfX(name, layout, weights),
    };
  });
  const most = (key) => Math.max(...each.map((it) => it[key]));
  return { inner: most("inner"), all: most("all"), narrow: most("narrow") };
}

/** A kernel's row; where the families differ, each figure in their order. */
function row(own) {
  const cell = (value) => {
    const all = own.map((it) => value(it) ?? "");
    return new Set(all).size === 1 ? all[0] : all.join(" / ");
  };
  const decoded = own.map(weightsOf);
  const weight = (key, digits) => cell((it) => decoded[own.indexOf(it)]?.[key].toFixed(digits));
  return [
    own[0].name,
    cell(({ stats }) => stats.VGPRs),
    cell(({ stats }) => stats["Spilled VGPRs"] + stats["Spilled SGPRs"]),
    cell(({ stats }) => stats["Scratch size"]),
    cell(({ stats }) => stats["LDS size"]),
    weight("inner", 2),
    weight("all", 2),
    weight("narrow", 0),
  ];
}

const HEAD = ["kernel", "VGPRs", "spills", "scratch", "LDS", "VALU a weight", "with scales and sums", "narrow loads"];

if (process.argv[2] === "--compile") await compile(process.argv[3], process.argv[4]);
const folder = mkdtempSync(join(tmpdir(), "ingle-isa-"));
try {
  const filter = process.argv[2] ?? DECODE;
  const kernels = FAMILIES.flatMap((family) => compiled(family, filter, folder));
  const names = new Set(kernels.map(({ name }) => name));
  console.log(`| ${HEAD.join(" | ")} |\n| ${HEAD.map((_, i) => (i < 1 ? "---" : "---:")).join(" | ")} |`);
  for (const name of names) console.log(`| ${row(kernels.filter((it) => it.name === name)).join(" | ")} |`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
