/** The rules of the house that a machine can check: what the compiler and the linter do not see, and what they might be told to overlook. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { CompiledKernel } from "../device/pipelines.ts";
import { everyKernel } from "../kernels/kernelList.ts";
import {
  filesUnder,
  lineOf,
  nodesOf,
  parseText,
  ROOT,
  type SourceFile,
  type SyntaxNode,
  sourceFiles,
} from "./sourceFiles.ts";

/** A rule returns what breaks it, as "line: what". */
type Rule = (file: SourceFile) => string[];

const at = (file: SourceFile, { start }: SyntaxNode, what: string) => `${lineOf(file, start)}: ${what}`;

const noAny: Rule = (file) =>
  [...nodesOf(file.body)].filter(({ type }) => type === "TSAnyKeyword").map((node) => at(file, node, "any"));

const noNonNull: Rule = (file) =>
  [...nodesOf(file.body)].filter(({ type }) => type === "TSNonNullExpression").map((node) => at(file, node, "!"));

/** In any comment: the words that make the compiler look away, or the linter from what the house forbids. */
const noLookingAway: Rule = (file) =>
  matches(
    file,
    /@ts-(?:ignore|nocheck|expect-error)|biome-i[g]nore.*(?:noExplicitAny|noNonNull|noDefaultExport|noTsIgnore)/g,
  );

const noLaterWork: Rule = (file) => matches(file, /\b(?:TO[D]O|FIX[M]E|XX[X])\b/g);

function matches(file: SourceFile, pattern: RegExp): string[] {
  return [...file.text.matchAll(pattern)].map(({ index, 0: found }) => `${lineOf(file, index)}: ${found}`);
}

const noDefaultExport: Rule = (file) => {
  if (/^[^/]*\.config\.ts$/.test(file.path)) return []; // what vitest wants
  const found = file.body.filter(
    (node) =>
      node.type === "ExportDefaultDeclaration" || (node.type === "ExportNamedDeclaration" && exportsDefault(node)),
  );
  return found.map((node) => at(file, node, "default export"));
};

function exportsDefault({ specifiers }: SyntaxNode): boolean {
  return (
    Array.isArray(specifiers) &&
    specifiers.some(({ exported }) => exported?.name === "default" || exported?.value === "default")
  );
}

/** Only the package's entry points hand on what another file exports. */
const noBarrel: Rule = (file) => {
  if (entryPoints().includes(file.path)) return [];
  const handsOn = ({ type, source }: SyntaxNode) =>
    type === "ExportAllDeclaration" || (type === "ExportNamedDeclaration" && source !== null);
  return file.body.filter(handsOn).map((node) => at(file, node, "export … from"));
};

/** Sources of what package.json exports. */
function entryPoints(): string[] {
  const { exports } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const targets = Object.values(exports).map((target) =>
    typeof target === "string" ? target : Object(target).default,
  );
  return targets.map((target) => String(target).replace(/^\.\/dist\/(.*)\.js$/, "$1.ts"));
}

/** The first line says what the file is; a `#!` line may come before it. */
const opensWithClaim: Rule = ({ text, path, isTest }) => {
  if (isTest || /\.config\.ts$/.test(path)) return []; // tests are named after what they test
  const first = text
    .replace(/^#!.*\n/, "")
    .split("\n", 2)
    .join("\n");
  return /^(\/\*\* (?!\*)\S|\/\*\*\n \* \S|\/\/ \S)/.test(first) ? [] : ["1: no sentence that says what the file is"];
};

/** A sentence before each export. The only export of a file has it in the file's head. */
const exportsAreSaid: Rule = (file) => {
  if (file.isTest) return [];
  const exported = file.body.filter(
    ({ type, declaration }) => type === "ExportNamedDeclaration" && declaration !== null,
  );
  if (exported.length === 1) return [];
  const silent = exported.filter((node) => !isSaid(file, node));
  return silent.map((node) =>
    at(file, node, file.text.slice(node.start, node.end).split("\n", 1).join("").slice(0, 60)),
  );
};

/** Whether a comment ends right before the node; one for two declarations of a kind that stand together is enough. */
function isSaid(file: SourceFile, node: SyntaxNode): boolean {
  const before = file.text.slice(0, node.start).trimEnd();
  if (file.text.slice(before.length, node.start).includes("\n\n")) return false;
  if (before.endsWith("*/") || /(^|\n)\s*\/\/ [^\n]*$/.test(before)) return true;
  const previous = file.body[file.body.indexOf(node) - 1];
  const touches =
    previous !== undefined &&
    file.text.slice(previous.end, node.start) === "\n" &&
    previous.type === "ExportNamedDeclaration";
  return touches && isSaid(file, previous);
}

const RULES: Readonly<Record<string, Rule>> = {
  "there is no any": noAny,
  "nothing is claimed to be there with !": noNonNull,
  "nobody tells the compiler or the linter to look away": noLookingAway,
  "work for later is an issue, not a comment": noLaterWork,
  "there is no default export": noDefaultExport,
  "only the package's entry points hand on exports of other files": noBarrel,
  "every file opens with what it is": opensWithClaim,
  "every export has a sentence": exportsAreSaid,
};

const files = sourceFiles();

describe("sources", () => {
  test("were found", () => expect(files.length).toBeGreaterThan(100));

  test.each(Object.entries(RULES))("%s", (_, rule) => {
    expect(files.flatMap((file) => rule(file).map((found) => `${file.path}:${found}`))).toEqual([]);
  });

  test("scripts open with what they are", () => {
    const scripts = filesUnder("scripts").filter((path) => path.endsWith(".mjs"));
    const silent = scripts.filter(
      (path) => !/^(#!.*\n)?(\/\/|\/\*\*) ?\S/.test(readFileSync(join(ROOT, path), "utf8")),
    );
    expect(silent).toEqual([]);
  });
});

/** WGSL that some driver gets wrong, or that ties a body to one shape of workgroup. */
const WGSL_RULES: readonly (readonly [string, RegExp])[] = [
  ["dot() sums in the driver's order", /\bdot\s*\(/],
  [
    "an infinity or a NaN may be assumed away",
    /-?\binf\b|\bnan\b|0x1p\+?1(2[89]|[3-9]\d)|\d[eE]\+?(39|[4-9]\d)|\/ *0\.0*\b/,
  ],
  ["x != x is false for a NaN on some drivers", /(?<![\w.[\]])(\w+) != \1\b(?![\w.[(])/],
  ["sin and cos are off by up to 1e-2: tables come from the CPU", /\b(sin|cos)\s*\(/],
  ["tanh of ±100 is a NaN on one driver: clamp its argument", /\btanh\s*\((?!\s*clamp\()/],
  ["quantizeToF16 flushes subnormals", /\bquantizeToF16\s*\(/],
  ["lanes come from WG", /@workgroup_size\s*\(\s*(?!WG\s*\))/],
  ["a feature belongs to a variant that names it in its spec", /^\s*(enable (?!(subgroups|f16);)|requires\b)/m],
];

describe("WGSL", () => {
  const kernels = everyKernel();

  test("kernels were found, each by its own name", () => {
    expect(kernels.length).toBeGreaterThan(60);
    expect(new Set(kernels.map(({ name }) => name)).size).toBe(kernels.length);
  });

  test.each(WGSL_RULES)("%s", (_, wrong) => {
    expect(kernels.flatMap((kernel) => brokenLine(kernel, wrong))).toEqual([]);
  });

  test("subgroup operations are in variants whose name tells", () => {
    const odd = kernels.filter(({ name, code }) => /\bsubgroup/.test(code) !== / broadcast4?$/.test(name));
    expect(odd.map(({ name }) => name)).toEqual([]);
  });

  test("arithmetic in f16 and dot products of bytes are in variants whose name tells", () => {
    const odd = kernels.filter(
      ({ name, code }) =>
        /^enable f16;|\bvec[234]h\b|\bf16\b/m.test(code) !== / M=\d halves$/.test(name) ||
        /\bdot4/.test(code) !== / M=\d bytes$/.test(name),
    );
    expect(odd.map(({ name }) => name)).toEqual([]);
  });

  test("a body has one entry point, called main", () => {
    const odd = kernels.filter(
      ({ code }) => code.match(/@compute/g)?.length !== 1 || !/@compute @workgroup_size\(WG\)\s*fn main\(/.test(code),
    );
    expect(odd.map(({ name }) => name)).toEqual([]);
  });

  test("names are snake_case, structs PascalCase, constants UPPER_CASE", () => {
    const odd = kernels.flatMap(({ name, code }) => {
      const words = [...code.matchAll(/\b(fn|let|var|struct|const)(?:<[^>]*>)? +(\w+)/g)];
      return words.filter(([, kind, word]) => !wellNamed(kind ?? "", word ?? "")).map(([line]) => `${name}: ${line}`);
    });
    expect([...new Set(odd)]).toEqual([]);
  });

  test("shapes are params: no two variants of a kernel differ by a size", () => {
    // A name tells a variant's layout or cache type, rows a launch, room for a head, and options in words; nothing else has a digit, but the lanes of a broadcast.
    const odd = kernels.filter(
      ({ name }) =>
        !/^[a-z_]+( (f32|f16|bf16|int8|affine[234568]|e2m1|e4m3|codebook4))?( M=[1248])?( head_dim<=(64|128|256)| width<=(128|576))?( [a-z_ -]+(?<= broadcast)4?| [a-z_ -]+)?$/.test(
          name,
        ),
    );
    expect(odd.map(({ name }) => name)).toEqual([]);
  });
});

function brokenLine({ name, code }: CompiledKernel, wrong: RegExp): string[] {
  const lines = code.split("\n").map((line) => line.replace(/\/\/.*$/, ""));
  const index = lines.findIndex((line) => wrong.test(line));
  return index < 0 ? [] : [`${name}: ${lines[index]?.trim()}`];
}

function wellNamed(kind: string, word: string): boolean {
  if (kind === "struct") return /^[A-Z][A-Za-z]*$/.test(word);
  if (kind === "const") return /^[A-Z][A-Z0-9_]*$/.test(word);
  return /^[a-z][a-z0-9_]*$/.test(word);
}

describe("the rules themselves", () => {
  const broken: readonly (readonly [string, string])[] = [
    ["there is no any", "/** X. */\nconst x: any = 1;"],
    ["there is no any", "/** X. */\nconst x = JSON.parse('1') as Record<string, any>;"],
    ["nothing is claimed to be there with !", "/** X. */\nconst x = [1][0]!;"],
    ["nobody tells the compiler or the linter to look away", `/** X. */\n// ${"@ts"}-ignore\nconst x = 1;`],
    ["work for later is an issue, not a comment", `/** X. */\n// TO${"DO"} y`],
    ["there is no default export", "/** X. */\nexport default 1;"],
    ["there is no default export", "/** X. */\nconst x = 1;\nexport { x as default };"],
    ["only the package's entry points hand on exports of other files", '/** X. */\nexport * from "./y.ts";'],
    ["only the package's entry points hand on exports of other files", '/** X. */\nexport { y } from "./y.ts";'],
    ["every file opens with what it is", 'import "./y.ts";\n/** X. */'],
    ["every file opens with what it is", "/**\n */\nconst x = 1;"],
    ["every export has a sentence", "/** X. */\n\nexport const x = 1;\n\nexport const y = 2;"],
    ["every export has a sentence", "/** X. */\n\nexport const x = 1;\n/** Y. */\nexport const y = 2;"],
  ];

  test.each(broken)("%s: a file that breaks it is found", (name, text) => {
    const found = RULES[name]?.(parseText("engine/x.ts", text)) ?? [];
    expect(found.length).toBeGreaterThan(0);
  });

  test("what is right is left alone", () => {
    const text =
      '/** X. */\nimport { a } from "./a.ts";\n\n/** Y, in two parts. */\nexport const y = a !== 1 ? "any!" : "";\nexport const z = !a;\n';
    const file = parseText("engine/x.ts", text);
    expect(Object.values(RULES).flatMap((rule) => rule(file))).toEqual([]);
  });

  test.each([
    "let a = dot(b, c);",
    "var m = -inf;",
    "let m = -1e39;",
    "let m = 0x1p128;",
    "if (v != v) {",
    "let s = sin(x);",
    "let t = tanh(x);",
    "@compute @workgroup_size(64)",
    "enable clip_distances;",
  ])("%s is found in a body", (line) => {
    expect(
      WGSL_RULES.filter(([, wrong]) => brokenLine({ name: "x", code: line, bindings: [] }, wrong).length > 0),
    ).toHaveLength(1);
  });
});
