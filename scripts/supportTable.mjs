// Makes README's table of what was compared with reference implementations: formats, families and adapters. Prints it where README has no place for it.
//
//   node scripts/supportTable.mjs [--adapter=llvmpipe …] [--results=FILE] FOLDER …
//
// Each folder holds golden checkpoints: folders with a config.json and an expected.safetensors (input_ids, logits). Every position's log-probabilities must be within 1e-3 of the
// reference's, in f32. Results are kept in FILE (default .support.json) and a checkpoint that is there is not run again, so that long runs can be cut into pieces.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { openFile } from "../dist/device/nodeFiles.js";
import { Engine } from "../dist/engine/index.js";
import { openWeights } from "../dist/models/weights/checkpoint.js";

const TOLERANCE = 1e-3;
const README = fileURLToPath(new URL("../README.md", import.meta.url));
const MARKS = ["<!-- support: made by scripts/supportTable.mjs -->", "<!-- /support -->"];

const flags = (name) => process.argv.flatMap((it) => (it.startsWith(`--${name}=`) ? [it.slice(name.length + 3)] : []));
const folders = process.argv.slice(2).filter((it) => !it.startsWith("--"));
const file = flags("results")[0] ?? ".support.json";
const results = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : [];

const golden = folders.flatMap((folder) =>
  readdirSync(folder)
    .map((name) => join(folder, name))
    .filter((dir) => ["config.json", "expected.safetensors"].every((it) => existsSync(join(dir, it)))),
);
for (const adapter of flags("adapter")) {
  for (const dir of golden) {
    if (results.some((it) => it.name === basename(dir) && it.adapter === adapter)) continue;
    results.push({ name: basename(dir), adapter, ...(await compare(dir, adapter)) });
    writeFileSync(file, `${JSON.stringify(results, null, 1)}\n`);
    const { name, worst, why } = results.at(-1);
    console.error(`${adapter} ${name}: ${why ?? worst.toExponential(1)}`);
  }
}
const [before, rest] = readFileSync(README, "utf8").split(MARKS[0]);
const after = rest?.split(MARKS[1])[1];
if (after === undefined) console.log(table());
else writeFileSync(README, `${before}${MARKS[0]}\n\n${table()}\n${MARKS[1]}${after}`);

/** Format, family, and the largest distance of a log-probability; or why there is none. */
async function compare(dir, adapter) {
  const family = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")).model_type;
  let engine;
  try {
    engine = await Engine.load(dir, { adapter, precision: "f32", kvType: "f32" });
    const expected = await openWeights(await openFile(join(dir, "expected.safetensors")));
    const read = async (name) => (await expected.read(name)).slice().buffer;
    const [sequences, length] = expected.tensors.get("input_ids").shape;
    const ids = new Int32Array(await read("input_ids"));
    const logits = new Float32Array(await read("logits"));
    const vocabulary = logits.length / ids.length;
    let worst = 0;
    for (let s = 0; s < sequences; s++) {
      const rows = [];
      const tokens = [...ids.subarray(s * length, (s + 1) * length)];
      await engine.score({ tokens, onLogits: (_, row) => rows.push(logSoftmax(row)) });
      for (const [i, row] of rows.entries()) {
        const from = (s * length + i) * vocabulary;
        const want = logSoftmax(logits.subarray(from, from + vocabulary));
        for (let v = 0; v < vocabulary; v++)
          worst = Math.max(worst, Math.abs(row[v] - want[v]) || Math.abs(want[v] - row[v]));
      }
    }
    await expected.close();
    return { family, format: formatOf(engine), worst, passed: worst <= TOLERANCE };
  } catch (error) {
    return { family, format: "", passed: false, why: String(error.message) };
  } finally {
    await engine?.close();
  }
}

function logSoftmax(row) {
  const best = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = row.reduce((total, value) => total + Math.exp(value - best), 0);
  return Float64Array.from(row, (value) => value - best - Math.log(sum));
}

/** The method and bits of most matrices that are quantized; else plain. */
function formatOf(engine) {
  const formats = engine.model.weights.matrices.map(({ format }) => format.split(",")[0]);
  return formats.find((format) => !/^(F32|F16|BF16)$/.test(format)) ?? "plain";
}

/** A row a format and family, a column an adapter: how many checkpoints agree, and the largest distance. */
function table() {
  const adapters = [...new Set(results.map((it) => it.adapter))];
  const keys = [
    ...new Set(results.filter(({ format }) => format !== "").map(({ format, family }) => `${format}|${family}`)),
  ];
  const cell = (key, adapter) => {
    const all = results.filter((it) => it.adapter === adapter && `${it.format}|${it.family}` === key);
    const good = all.filter(({ passed }) => passed);
    const worst = Math.max(...all.map((it) => it.worst ?? Number.NaN));
    return all.length === 0 ? "not run" : `${good.length} of ${all.length}, ${worst.toExponential(0)}`;
  };
  const rows = keys
    .sort()
    .map((key) => `| ${[...key.split("|"), ...adapters.map((adapter) => cell(key, adapter))].join(" | ")} |`);
  const head = [`| format | family | ${adapters.join(" | ")} |`, `|---|---|${adapters.map(() => "---|").join("")}`];
  return `${[...head, ...rows].join("\n")}\n`;
}
