/** Imports go down only: who may import whom, as a table, and every import of the project held to it. */
import { posix } from "node:path";
import { describe, expect, test } from "vitest";
import { nodesOf, parseText, type SourceFile, sourceFiles } from "./sourceFiles.ts";

/** What the errors of checkpoints need is nothing of `models/`, so the folders below it may throw them. */
const CHECKPOINT_ERRORS = "models/errors.ts";

/** By folder: the folders, or single files, that it may import besides itself. A folder without a row is a failure. */
const MAY: Readonly<Record<string, readonly string[]>> = {
  device: [],
  "kernels/formats": [],
  "kernels/fragments": ["kernels/formats"],
  kernels: ["kernels/attention", "kernels/moe", "kernels/state", "kernels/formats", "kernels/fragments", "device"],
  "kernels/attention": ["kernels", "kernels/formats", "kernels/fragments", "device"],
  "kernels/moe": ["kernels", "kernels/formats", "kernels/fragments", "device"],
  "kernels/state": ["kernels", "kernels/formats", "kernels/fragments", "device"],
  "models/weights": [CHECKPOINT_ERRORS, "kernels/formats", "device"],
  "models/formats": [...below("models/formats"), CHECKPOINT_ERRORS, "models/configChecks.ts", "models/matrix.ts"],
  "models/text": ["models/weights", CHECKPOINT_ERRORS, "device"],
  models: below("models"),
  "models/families": below("models/families"),
  "models/ops": [...below("models/ops"), "models/step.ts", "models/matrix.ts", "models/vectors.ts"],
  "engine/openai": [...below("engine/openai"), "engine/types.ts", "engine/errors.ts"],
  engine: below("engine"),
  gateway: [...below("engine"), "engine"],
  bench: [...below("engine"), "engine"],
  "bench/peers": [...below("bench"), "bench"],
  cli: [...below("bench"), "bench", "gateway"],
  web: [...below("bench"), "bench"],
  test: [...below("bench"), "bench", "gateway", "cli", "web"],
};

/** A function, so that the table can be read from top to bottom: all rows above `folder`. */
function below(folder: string): string[] {
  const order = [
    "device",
    "kernels/formats",
    "kernels/fragments",
    "kernels",
    "kernels/attention",
    "kernels/moe",
    "kernels/state",
    "models/weights",
    "models/formats",
    "models/text",
    "models/ops",
    "models",
    "models/families",
    "engine/openai",
    "engine",
    "bench",
  ];
  return order.slice(0, order.indexOf(folder));
}

/** Files that may use Node's own modules: the rim of the project. Everything else gets files, clock and GPU passed in. */
const MAY_USE_NODE = [/^(cli|bench|web|test)\//, /^(device|gateway)\/node[A-Z.]/, /\.test\.ts$/, /^[^/]*\.config\.ts$/];

interface Import {
  readonly from: SourceFile;
  /** A path from the project's folder, or a package's name as written. */
  readonly to: string;
  readonly own: boolean;
}

/** Every module that a file names: static, dynamic, re-exported, and in types. */
function importsOf(file: SourceFile): Import[] {
  const kinds = [
    "ImportDeclaration",
    "ExportNamedDeclaration",
    "ExportAllDeclaration",
    "ImportExpression",
    "TSImportType",
  ];
  const named: string[] = [];
  for (const { type, source } of nodesOf(file.body)) {
    if (!kinds.includes(type) || typeof source !== "object" || source === null || !("value" in source)) continue;
    if (typeof source.value === "string") named.push(source.value);
  }
  return named.map((name) => {
    const own = name.startsWith(".");
    return { from: file, to: own ? posix.join(file.folder, name) : name, own };
  });
}

function mayImport({ from, to }: Import): boolean {
  const folder = posix.dirname(to);
  if (folder === from.folder || from.folder === "") return true;
  const row = MAY[from.folder] ?? [];
  if (row.includes(to) || row.includes(folder)) return true;
  const top = (path: string) => path.split("/")[0] ?? "";
  // A test may use the helpers of tests, and what else its own part has, such as a source of bytes in memory.
  return from.isTest && [top(from.path), "test"].includes(top(to));
}

/** A cycle through `file` as paths, or undefined. `seen` holds files that are known to be in none. */
function cycleFrom(
  path: string,
  next: ReadonlyMap<string, readonly string[]>,
  seen: Set<string>,
  trail: string[],
): string[] | undefined {
  if (trail.includes(path)) return [...trail.slice(trail.indexOf(path)), path];
  if (seen.has(path)) return undefined;
  trail.push(path);
  for (const target of next.get(path) ?? []) {
    const found = cycleFrom(target, next, seen, trail);
    if (found !== undefined) return found;
  }
  trail.pop();
  seen.add(path);
  return undefined;
}

function findCycle(imports: readonly Import[]): string[] | undefined {
  const next = new Map<string, string[]>();
  for (const { from, to, own } of imports) {
    if (own) next.set(from.path, [...(next.get(from.path) ?? []), to]);
  }
  const seen = new Set<string>();
  for (const path of next.keys()) {
    const found = cycleFrom(path, next, seen, []);
    if (found !== undefined) return found;
  }
  return undefined;
}

const files = sourceFiles();
const imports = files.flatMap(importsOf);
const say = ({ from, to }: Import) => `${from.path} → ${to}`;

describe("layers", () => {
  test("the sources were found", () => {
    expect(files.length).toBeGreaterThan(100);
    expect(imports.length).toBeGreaterThan(300);
  });

  test("every folder with sources has a row", () => {
    const folders = new Set(files.map(({ folder }) => folder).filter((folder) => folder !== ""));
    expect([...folders].filter((folder) => MAY[folder] === undefined)).toEqual([]);
  });

  test("no import goes up", () => {
    expect(imports.filter((it) => it.own && !mayImport(it)).map(say)).toEqual([]);
  });

  test("no row of the table allows two folders each other, but those of the kernels", () => {
    const both = Object.keys(MAY).flatMap((a) =>
      (MAY[a] ?? []).filter((b) => a < b && MAY[b]?.includes(a)).map((b) => `${a} ↔ ${b}`),
    );
    expect(both).toEqual(["kernels ↔ kernels/attention", "kernels ↔ kernels/moe", "kernels ↔ kernels/state"]);
  });

  test("no import makes a cycle, types included", () => {
    expect(findCycle(imports)).toBeUndefined();
  });

  test("every import of ours names a file that is there, with its extension", () => {
    const known = new Set(files.map(({ path }) => path));
    const lost = imports.filter(({ own, to }) => own && to.endsWith(".ts") && !known.has(to));
    const bare = imports.filter(({ own, to }) => own && !/\.(ts|json|mjs|js)$/.test(to));
    expect([...lost, ...bare].map(say)).toEqual([]);
  });

  test("Node's modules stay at the rim", () => {
    const inside = imports.filter(
      ({ from, to }) => to.startsWith("node:") && !MAY_USE_NODE.some((at) => at.test(from.path)),
    );
    expect(inside.map(say)).toEqual([]);
  });

  test("Node's globals stay at the rim too", () => {
    const inside = files.filter(({ path }) => !MAY_USE_NODE.some((at) => at.test(path)));
    const used = inside.flatMap((file) => nodeGlobals(file).map((name) => `${file.path}: ${name}`));
    expect(used).toEqual([]);
  });
});

/** Uses of a global that only Node has, as in `process.env`; asking `globalThis` for one is how a file finds out. */
function nodeGlobals({ body }: SourceFile): string[] {
  const names = ["process", "Buffer", "require", "__dirname", "__filename", "setImmediate"];
  const found: string[] = [];
  for (const { type, object, callee } of nodesOf(body)) {
    const used = type === "MemberExpression" ? object : type === "CallExpression" ? callee : undefined;
    if (typeof used !== "object" || used === null || !("name" in used)) continue;
    if (typeof used.name === "string" && names.includes(used.name)) found.push(used.name);
  }
  return found;
}

describe("the rules themselves", () => {
  const check = (path: string, text: string) => importsOf(parseText(path, text));

  test("an import that goes up is found in each of its forms", () => {
    const forms = [
      'import { Engine } from "../engine/engine.ts";',
      'import type { Engine } from "../engine/engine.ts";',
      'export { Engine } from "../engine/engine.ts";',
      'export * from "../engine/engine.ts";',
      'const late = () => import("../engine/engine.ts");',
      'type Late = typeof import("../engine/engine.ts");',
    ];
    for (const form of forms) expect(check("kernels/x.ts", form).map(mayImport), form).toEqual([false]);
  });

  test("a folder below may not reach models/ past its errors", () => {
    expect(check("models/weights/x.ts", 'import "../errors.ts"; import "../config.ts";').map(mayImport)).toEqual([
      true,
      false,
    ]);
  });

  test("a test may import the helpers of tests and the whole of its part, its neighbour may not", () => {
    const text = 'import "../../test/sourceFiles.ts"; import "../httpSource.ts"; import "../../engine/engine.ts";';
    expect(check("models/weights/x.test.ts", text).map(mayImport)).toEqual([true, true, false]);
    expect(check("models/weights/x.ts", text).map(mayImport)).toEqual([false, false, false]);
  });

  test("a cycle is found through three files", () => {
    const cycle = [
      check("engine/a.ts", 'import "./b.ts";'),
      check("engine/b.ts", 'import type { C } from "./c.ts";'),
      check("engine/c.ts", 'import "./a.ts";'),
    ];
    expect(findCycle(cycle.flat())).toEqual(["engine/a.ts", "engine/b.ts", "engine/c.ts", "engine/a.ts"]);
  });

  test("Node's globals are found, and asking for them is not", () => {
    expect(
      nodeGlobals(parseText("engine/x.ts", "const a = process.env; Buffer.from([]); globalThis.process;")),
    ).toEqual(["process", "Buffer"]);
  });
});
