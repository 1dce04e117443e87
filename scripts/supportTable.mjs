// Compares golden checkpoints with their references on an adapter, keeps what came out, and makes README's table of it.
//
//   node scripts/supportTable.mjs [--adapter=NAME --folder=DIR … [--seconds=N]]   compares, then writes the table; needs dist/
//   node scripts/supportTable.mjs --check                                         fails where README's table is not that of the results
//
// DIR holds golden checkpoints: folders with config.json and expected.safetensors (input_ids, logits, greedy, greedy_gap). Every log-probability
// must be within 1e-3 of the reference's with f32 throughout, every greedy token equal. Results are kept in docs/support.json, one a checkpoint and
// adapter: what is there is not run again (take its entry out to repeat it), and --seconds begins none after that many, so that a run can be cut into pieces.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const TOLERANCE = 1e-3;
const MARKS = ["<!-- support: begin -->", "<!-- support: end -->"];
const at = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const flags = (name) => process.argv.flatMap((it) => (it.startsWith(`--${name}=`) ? [it.slice(name.length + 3)] : []));

const README = flags("readme")[0] ?? at("README.md");
const RESULTS = flags("results")[0] ?? at("docs/support.json");
const results = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, "utf8")) : [];
const [adapter] = flags("adapter");
if (adapter !== undefined)
  await run(adapter, flags("folder").flatMap(goldenIn), 1000 * Number(flags("seconds")[0] ?? 1e9));

const before = readFileSync(README, "utf8");
const after = withTable(before);
if (!process.argv.includes("--check")) writeFileSync(README, after);
else if (after !== before) {
  console.error(`${README}: the table is not that of ${RESULTS}; run node scripts/supportTable.mjs`);
  process.exitCode = 1;
}

/** Checkpoints of a folder, or the folder itself where it is one. */
function goldenIn(folder) {
  const isGolden = (dir) => ["config.json", "expected.safetensors"].every((name) => existsSync(join(dir, name)));
  return [folder, ...readdirSync(folder).map((name) => join(folder, name))].filter(isGolden);
}

/** Compares what has no result yet, on one device, and keeps each result at once. */
async function run(selector, folders, milliseconds) {
  const start = performance.now();
  const { openGpu } = await import("../dist/device/gpu.js");
  const { PipelineCache } = await import("../dist/device/pipelines.js");
  const gpu = await openGpu({ adapter: selector });
  const device = { gpu, pipelines: new PipelineCache(gpu) };
  const { name, driver } = gpu.adapter;
  const { version } = JSON.parse(readFileSync(at("package.json"), "utf8"));
  const isNew = (dir) => !results.some((it) => it.name === basename(dir) && it.adapter === name);
  for (const dir of folders.filter(isNew)) {
    if (performance.now() - start > milliseconds) break;
    const found = await compare(dir, device);
    const entry = {
      name: basename(dir),
      adapter: name,
      driver,
      date: new Date().toISOString().slice(0, 10),
      ingle: version,
    };
    results.push({ ...entry, ...found });
    results.sort((a, b) => (key(a) < key(b) ? -1 : 1));
    writeFileSync(RESULTS, `${JSON.stringify(results, null, 2)}\n`);
    console.error(
      `${name} ${basename(dir)}: ${found.why ?? `${found.worst.toExponential(1)}, greedy ${found.greedy}`}`,
    );
  }
  await gpu.close();
}

function key({ name, adapter }) {
  return `${name} ${adapter}`;
}

/** Family, format, the largest distance of a log-probability and how many greedy tokens are equal; or why there is no such thing. */
async function compare(dir, device) {
  const { Engine } = await import("../dist/engine/index.js");
  const family = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")).model_type;
  let engine;
  try {
    engine = await Engine.load(dir, { device, precision: "f32", kvType: "f32" });
    const expected = await readExpected(join(dir, "expected.safetensors"));
    const worst = await scored(engine, expected);
    const { equal, of } = await continued(engine, expected);
    const passed = worst <= TOLERANCE && equal === of;
    return { family, format: formatOf(engine), worst: Number(worst.toPrecision(2)), greedy: `${equal}/${of}`, passed };
  } catch (error) {
    return { family, format: "", passed: false, why: String(error.message) };
  } finally {
    await engine?.close();
  }
}

/** Largest |Δ log p| over all positions and the whole vocabulary; NaN poisons it. */
async function scored(engine, { input_ids, logits }) {
  const vocabulary = logits.values.length / input_ids.values.length;
  let worst = 0;
  for (const [s, tokens] of rowsOf(input_ids).entries()) {
    const rows = [];
    await engine.score({ tokens, onLogits: (_, row) => rows.push(logSoftmax(row)) });
    if (rows.length !== tokens.length) return Number.NaN;
    for (const [i, row] of rows.entries()) {
      const from = (s * tokens.length + i) * vocabulary;
      const want = logSoftmax(logits.values.subarray(from, from + vocabulary));
      for (let v = 0; v < vocabulary; v++) {
        const off = Math.abs(row[v] - want[v]);
        if (!(off <= worst)) worst = off;
      }
    }
  }
  return worst;
}

/** Greedy tokens: those equal to the reference's, from the first difference on none. A near tie may go either way. */
async function continued(engine, { input_ids, greedy, greedy_gap }) {
  const prompts = rowsOf(input_ids);
  const gaps = greedy_gap === undefined ? [] : rowsOf(greedy_gap);
  const counts = await Promise.all(
    rowsOf(greedy).map(async (want, s) => {
      const tokens = prompts[s];
      const maxTokens = Math.min(want.length, engine.plan.context - tokens.length);
      const got = [];
      if (maxTokens > 0)
        for await (const { token } of engine.generate({ tokens, maxTokens, temperature: 0, ignoreEos: true }))
          got.push(token);
      const off = want.slice(0, maxTokens).findIndex((token, i) => got[i] !== token);
      const tie = off >= 0 && gaps[s]?.[off] < 2 * TOLERANCE;
      return [off < 0 || tie ? maxTokens : off, maxTokens];
    }),
  );
  return { equal: sum(counts.map(([equal]) => equal)), of: sum(counts.map(([, of]) => of)) };
}

async function readExpected(path) {
  const { openFile } = await import("../dist/device/nodeFiles.js");
  const { openWeights } = await import("../dist/models/weights/checkpoint.js");
  const file = await openWeights(await openFile(path));
  const expected = {};
  for (const name of ["input_ids", "logits", "greedy", "greedy_gap"]) {
    const tensor = file.tensors.get(name);
    if (tensor === undefined) continue;
    const { buffer } = (await file.read(name)).slice();
    const values = tensor.dtype === "I32" ? new Int32Array(buffer) : new Float32Array(buffer);
    expected[name] = { shape: tensor.shape, values };
  }
  await file.close();
  return expected;
}

function rowsOf({ shape: [count, length], values }) {
  return Array.from({ length: count }, (_, s) => [...values.subarray(s * length, (s + 1) * length)]);
}

function logSoftmax(row) {
  const best = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const total = row.reduce((all, value) => all + Math.exp(value - best), 0);
  return Float64Array.from(row, (value) => value - best - Math.log(total));
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

/** The method and bits of the first matrix that is quantized; else plain. */
function formatOf(engine) {
  const formats = engine.model.weights.matrices.map(({ format }) => format);
  const quantized = formats.find((format) => !/^(F32|F16|BF16|plain)\b/i.test(format));
  return quantized === undefined ? "plain" : quantized.split(",")[0];
}

/** README with the table between its marks. */
function withTable(text) {
  const [head, rest] = text.split(MARKS[0]);
  const tail = rest?.split(MARKS[1])[1];
  if (tail === undefined) throw new Error(`${README}: no ${MARKS.join(" … ")}, expected the table's place`);
  return `${head}${MARKS[0]}\n${table()}\n${MARKS[1]}${tail}`;
}

/** A row a format and family, a column an adapter: the largest distance of a log-probability, and whether all that was compared agrees. */
function table() {
  if (results.length === 0) return "Nothing was compared yet.";
  const adapters = [...new Set(results.map((it) => it.adapter))].sort();
  const rowOf = (it) => `${it.format || "refused"} | ${it.family}`;
  const rows = [...new Set(results.map(rowOf))].sort((a, b) => a.localeCompare(b, "en"));
  const lines = rows.map((row) => {
    const own = results.filter((it) => rowOf(it) === row);
    const checkpoints = new Set(own.map((it) => it.name)).size;
    const cells = adapters.map((name) => cell(own.filter((it) => it.adapter === name)));
    return `| ${[row, checkpoints, ...cells].join(" | ")} |`;
  });
  const head = [`| format | family | checkpoints | ${adapters.map(shortName).join(" | ")} |`];
  const notes = adapters.map((name) => {
    const own = results.filter((it) => it.adapter === name);
    const dates = own.map(({ date }) => date).sort();
    const period = [...new Set([dates[0], dates.at(-1)])].join(" to ");
    const good = own.filter(({ passed }) => passed).length;
    const drivers = [...new Set(own.map(({ driver }) => driver))].filter((it) => it !== "" && it !== name);
    return `${shortName(name)} is ${[name, ...drivers].join(", ")}: ${good} of ${own.length} pass, ${period}.`;
  });
  return [...head, `|---|---|---|${adapters.map(() => "---|").join("")}`, ...lines, "", ...notes].join("\n");
}

/** "2e-5 ✓", or how many of several pass. */
function cell(own) {
  if (own.length === 0) return "not run";
  const worst = Math.max(...own.map((it) => it.worst ?? Number.NaN));
  const good = own.filter(({ passed }) => passed).length;
  return `${worst.toExponential(0)} ${good === own.length ? "✓" : `✗ ${good} of ${own.length}`}`;
}

function shortName(name) {
  if (/llvmpipe/i.test(name)) return "lavapipe";
  return /swiftshader/i.test(name) ? "SwiftShader" : name;
}
