/** The documentation is true: its examples compile, its links lead somewhere, its commands and files are there, and nothing is left out. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, posix } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bench } from "../cli/bench.ts";
import type { Command } from "../cli/command.ts";
import { doctor } from "../cli/doctor.ts";
import type { FlagTable } from "../cli/flags.ts";
import { inspect } from "../cli/inspect.ts";
import { kernels } from "../cli/kernels.ts";
import { ls } from "../cli/ls.ts";
import { COMMON_FLAGS } from "../cli/modelFlags.ts";
import { pull } from "../cli/pull.ts";
import { rm } from "../cli/rm.ts";
import { run } from "../cli/run.ts";
import { score } from "../cli/score.ts";
import { serve } from "../cli/serve.ts";
import { filesUnder, nodesOf, ROOT, type SyntaxNode, sourceFiles } from "./sourceFiles.ts";

interface Page {
  readonly path: string;
  readonly text: string;
}

const pages = ["README.md", "CONTRIBUTING.md", ...filesUnder("docs").filter((path) => path.endsWith(".md"))].map(
  (path): Page => ({ path, text: readFileSync(join(ROOT, path), "utf8") }),
);
const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));

interface Block {
  readonly path: string;
  readonly language: string;
  readonly code: string;
}

/** Fenced blocks with their language. */
function blocksOf({ path, text }: Page): Block[] {
  const found = text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm);
  return Array.from(found, ([, language = "", code = ""]) => ({ path, language, code }));
}

const blocks = pages.flatMap(blocksOf);

describe("examples", () => {
  const folder = mkdtempSync(join(tmpdir(), "ingle-docs-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("in TypeScript compile against the sources", { timeout: 120_000 }, () => {
    const examples = blocks.filter(({ language }) => language === "ts");
    expect(examples.length).toBeGreaterThanOrEqual(3);
    const files = examples.map(({ path, code }, i) => {
      const name = `${path.replaceAll("/", "_")}-${i}.mts`;
      writeFileSync(join(folder, name), code);
      return name;
    });
    expect(compile(folder, files)).toBe("");
  });

  test("a wrong one would be found", { timeout: 120_000 }, () => {
    writeFileSync(join(folder, "wrong.mts"), 'import { Engine } from "ingle";\nawait Engine.load(1);\n');
    expect(compile(folder, ["wrong.mts"])).toContain("wrong.mts(2,");
  });

  test("are in languages that are checked, or are none", () => {
    expect(blocks.filter(({ language }) => !["ts", "sh"].includes(language)).map(({ path }) => path)).toEqual([]);
  });
});

/** What the compiler says of these files; "" if nothing. `ingle` means the sources here. */
function compile(folder: string, files: readonly string[]): string {
  const entries = Object.entries<{ types: string }>(manifest.exports).filter(([name]) => name !== "./package.json");
  const paths = entries.map(([name, { types }]) => [
    posix.join("ingle", name),
    [join(ROOT, types.replace(/^\.\/dist\/(.*)\.d\.ts$/, "$1.ts"))],
  ]);
  const declarations = filesUnder("device").filter((path) => path.endsWith(".d.ts"));
  const config = {
    extends: join(ROOT, "tsconfig.json"),
    compilerOptions: {
      paths: { ...Object.fromEntries(paths), openai: [join(ROOT, "node_modules/openai/index.d.mts")] },
      types: ["@webgpu/types", "@types/node"].map((name) => join(ROOT, "node_modules", name)),
      noUnusedLocals: false,
    },
    files: [...files, ...declarations.map((path) => join(ROOT, path))],
    include: [],
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  const { stdout, stderr } = spawnSync(process.execPath, [tsc, "-p", folder, "--pretty", "false"], {
    encoding: "utf8",
    cwd: folder,
  });
  return stdout + stderr;
}

describe("links", () => {
  const links = pages.flatMap(({ path, text }) =>
    Array.from(text.matchAll(/\]\(([^)\s]+)\)/g), ([, target = ""]) => ({ path, target })),
  );

  test("lead to files and headings that are there", () => {
    expect(links.length).toBeGreaterThan(10);
    expect(links.filter(({ path, target }) => !leads(path, target))).toEqual([]);
  });

  test("one that leads nowhere would be found", () => {
    expect(leads("docs/kernels.md", "numerics.md")).toBe(true);
    expect(leads("docs/kernels.md", "../docs/nothing.md")).toBe(false);
    expect(leads("README.md", "#the-library")).toBe(true);
    expect(leads("README.md", "#no-such-heading")).toBe(false);
  });
});

function leads(from: string, target: string): boolean {
  if (/^https?:/.test(target)) return true;
  const [file = "", anchor] = target.split("#");
  const path = file === "" ? join(ROOT, from) : join(ROOT, dirname(from), file);
  if (!existsSync(path)) return false;
  if (anchor === undefined) return true;
  const headings = Array.from(readFileSync(path, "utf8").matchAll(/^#+ (.+)$/gm), ([, title = ""]) => title);
  return headings.some(
    (title) =>
      title
        .toLowerCase()
        .replace(/[^\w\- ]/g, "")
        .replaceAll(" ", "-") === anchor,
  );
}

describe("commands", () => {
  const commands: Readonly<Record<string, Command>> = {
    run,
    score,
    serve,
    bench,
    inspect,
    doctor,
    kernels,
    pull,
    ls,
    rm,
  };
  /** Lines of shell blocks without comments, and whatever stands in backticks. */
  const lines = pages.flatMap((page) => [
    ...blocksOf(page)
      .filter(({ language }) => language === "sh")
      .flatMap(({ code }) => code.split("\n")),
    ...Array.from(page.text.matchAll(/`([^`\n]+)`/g), ([, code = ""]) => code),
    ...Array.from(page.text.matchAll(/^ {4}((?:[A-Z_]+=\S+ )*(?:npm|npx) .*)$/gm), ([, code = ""]) => code),
  ]);
  const calls = lines
    .flatMap((line) => line.replace(/\s#.*$/, "").split("&&"))
    .map((call) => call.trim().replace(/^(?:[A-Z_]+=\S+ )+/, ""));

  test("of npm are scripts of package.json", () => {
    const own = ["ci", "install", "i"];
    const names = calls.flatMap((call) => /^npm (?:run )?([a-z]+)/.exec(call)?.[1] ?? []);
    expect(names).toEqual(expect.arrayContaining(["ci", "start", "test", "lint"]));
    expect(names.filter((name) => !own.includes(name) && manifest.scripts[name] === undefined)).toEqual([]);
  });

  test("of npx come from what npm ci installs, or are ours", () => {
    const names = calls.flatMap((call) => /^npx (\S+)/.exec(call)?.[1] ?? []);
    expect(names).toContain("ingle");
    const there = (name: string) =>
      manifest.bin[name] !== undefined || existsSync(join(ROOT, "node_modules/.bin", name));
    expect(names.filter((name) => !there(name))).toEqual([]);
  });

  test("of ingle are there, with their flags", () => {
    const ours = calls.flatMap((call) => /^(?:npx )?ingle ([a-z]+.*)$/.exec(call)?.[1] ?? []);
    expect(new Set(ours.map((call) => call.split(" ")[0]))).toEqual(new Set(Object.keys(commands)));
    expect(ours.flatMap(wrongWords)).toEqual([]);
  });

  /** A command that there is not, and flags that it does not have. */
  function wrongWords(call: string): string[] {
    const [name = "", ...words] = call.replace(/[[\]()|]/g, " ").split(/\s+/);
    const command = commands[name];
    if (command === undefined) return [name];
    const flags: FlagTable = { ...command.flags, ...COMMON_FLAGS };
    const known = Object.entries(flags).flatMap(([flag, { short }]) => [
      `--${flag}`,
      ...(short === undefined ? [] : [`-${short}`]),
    ]);
    return words.filter((word) => /^--?[a-z]/.test(word) && !known.includes(word)).map((word) => `${name} ${word}`);
  }

  test("a wrong flag would be found", () => {
    expect(wrongWords("run -m MODEL --no-such-flag")).toEqual(["run --no-such-flag"]);
    expect(wrongWords("fly")).toEqual(["fly"]);
  });

  test("all of them are in README's table", () => {
    const table = pages[0]?.text ?? "";
    for (const name of Object.keys(commands)) expect(table).toContain(`| \`ingle ${name}`);
  });
});

describe("what is named", () => {
  test("in backticks like a file is there", () => {
    const parts = ["", "device", "kernels", "models", "engine", "gateway", "bench", "cli"];
    const named = pages.flatMap(({ path, text }) =>
      Array.from(text.matchAll(/`([\w@.-]+(?:\/[\w.-]+)+\.(?:ts|mjs|md|json))`/g), ([, file = ""]) => ({ path, file })),
    );
    expect(named.length).toBeGreaterThan(30);
    const placeholder = /(^|\/)x\.(cases\.)?ts$/; // of recipes
    const lost = named.filter(
      ({ file }) => !placeholder.test(file) && !parts.some((part) => existsSync(join(ROOT, part, file))),
    );
    expect(lost).toEqual([]);
  });

  test.each(["device", "kernels", "models", "engine", "gateway", "bench"])(
    "every module of %s/ has its line in architecture.md",
    (folder) => {
      const text = pages.find(({ path }) => path === "docs/architecture.md")?.text ?? "";
      const section = text.split(`### ${folder}/`)[1]?.split("\n### ")[0] ?? "";
      const named = Array.from(section.matchAll(/`([\w/]+\.ts)`/g), ([, name = ""]) => `${folder}/${name}`);
      const paths = sourceFiles().map(({ path }) => path);
      const modules = paths.filter((path) => path.startsWith(`${folder}/`) && !/\.(test|cases)\.ts$/.test(path));
      expect(named.sort()).toEqual(modules);
    },
  );

  test("the family that CONTRIBUTING shows is the file whole, and nothing but the registry names it", () => {
    const text = pages.find(({ path }) => path === "CONTRIBUTING.md")?.text ?? "";
    const sources = sourceFiles().filter(({ isTest }) => !isTest);
    const example = sources.find(({ path }) => path === "models/families/mistral.ts");
    const shown = example?.text.trimEnd().replace(/^(?=.)/gm, "    ");
    expect(text).toContain(`\n\n${shown}\n\n`);
    const lines = sources.flatMap(({ path, text: code }) =>
      code.split("\n").flatMap((line) => (/\bmistral\b/.test(line) ? [{ path, line: line.trim() }] : [])),
    );
    expect(lines.filter(({ path }) => path !== example?.path)).toEqual([
      { path: "models/families/registry.ts", line: 'import { mistral } from "./mistral.ts";' },
      { path: "models/families/registry.ts", line: "mistral," },
    ]);
  });

  test("README's table of what was compared is made of its results", () => {
    const check = (...more: string[]) =>
      spawnSync(process.execPath, [join(ROOT, "scripts/supportTable.mjs"), "--check", ...more], { encoding: "utf8" });
    expect(check()).toMatchObject({ status: 0, stderr: "" });
    const folder = mkdtempSync(join(tmpdir(), "ingle-support-"));
    const other = join(folder, "support.json");
    writeFileSync(other, JSON.stringify([{ name: "x", adapter: "y", driver: "", family: "llama", format: "plain" }]));
    expect(check(`--results=${other}`)).toMatchObject({ status: 1 });
    rmSync(folder, { recursive: true });
  });

  test("every code of a checkpoint's or source's error is in checkpoints.md", () => {
    const text = pages.find(({ path }) => path === "docs/checkpoints.md")?.text ?? "";
    const files = sourceFiles().filter(({ path, isTest }) => /^(models|device)\//.test(path) && !isTest);
    const codes = new Set(files.flatMap(({ body }) => errorCodes(body)));
    expect(codes.size).toBeGreaterThan(30);
    const general = ["ADAPTER_UNAVAILABLE", "OUT_OF_MEMORY", "DEVICE_LOST", "GPU_VALIDATION"]; // of the device, not of a checkpoint
    expect([...codes].filter((code) => !general.includes(code) && !text.includes(`\`${code}\``)).sort()).toEqual([]);
  });
});

/** Codes given to an error: the first words in capitals among the arguments of `new …Error`, `super` or a helper that makes one. */
function errorCodes(body: readonly SyntaxNode[]): string[] {
  const codes: string[] = [];
  for (const { type, callee, arguments: given } of nodesOf(body)) {
    if ((type !== "NewExpression" && type !== "CallExpression") || !Array.isArray(given)) continue;
    if (!/Error$|^super$|fail$/.test(nameOf(callee))) continue;
    for (const { type: kind, value } of given.slice(0, 2)) {
      if (kind === "Literal" && typeof value === "string" && /^[A-Z][A-Z0-9_]{3,}$/.test(value)) codes.push(value);
    }
  }
  return codes;
}

function nameOf(callee: unknown): string {
  if (typeof callee !== "object" || callee === null) return "";
  if ("type" in callee && callee.type === "Super") return "super";
  if ("property" in callee) return nameOf(callee.property);
  return "name" in callee && typeof callee.name === "string" ? callee.name : "";
}
