/** The project's own sources as data, parsed: what the layer and style tests look at. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAst } from "vitest/node";

/** The project's folder. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");

/** The folders that hold sources; every one of them has a row in the layer test. */
const SOURCE_FOLDERS = ["device", "kernels", "models", "engine", "gateway", "cli", "bench", "web", "test"] as const;

/** A node of the syntax tree: ESTree's, with TypeScript's own. */
export interface SyntaxNode {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [field: string]: unknown;
}

/** One source file. */
export interface SourceFile {
  /** From the project's folder, with "/". */
  readonly path: string;
  /** Its folder in the same way; "" for the project's own. */
  readonly folder: string;
  readonly text: string;
  readonly isTest: boolean;
  /** Its statements. */
  readonly body: readonly SyntaxNode[];
}

/** Every .ts file of the source folders and of the project's own, fixtures and declarations of others' packages left out. */
export function sourceFiles(): readonly SourceFile[] {
  parsed ??= readSources();
  return parsed;
}

let parsed: readonly SourceFile[] | undefined; // reading them takes a second, and each rule asks for them

function readSources(): readonly SourceFile[] {
  const own = readdirSync(ROOT).filter((name) => name.endsWith(".ts"));
  const deeper = SOURCE_FOLDERS.flatMap((folder) => filesUnder(folder));
  return [...own, ...deeper.filter((path) => isSource(path))].sort().map(parse);
}

const isSource = (path: string) =>
  path.endsWith(".ts") &&
  !path.endsWith(".d.ts") &&
  !path.startsWith("test/fixtures/") &&
  !/(^|\/)(dist|node_modules)\//.test(path);

/** Paths of all files below a folder that is there; none where it is not. */
export function filesUnder(folder: string): string[] {
  try {
    const names = readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" });
    return names.map((name) => posix.join(folder, name.split(sep).join("/")));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

function parse(path: string): SourceFile {
  const text = readFileSync(join(ROOT, path), "utf8");
  return parseText(path, text);
}

/** A file that need not be on disk. Throws SyntaxError where the text is no TypeScript. */
export function parseText(path: string, text: string): SourceFile {
  const { body } = parseAst(text, { lang: "ts" }) as unknown as { readonly body: readonly SyntaxNode[] };
  const folder = posix.dirname(path);
  return { path, folder: folder === "." ? "" : folder, text, isTest: path.endsWith(".test.ts"), body };
}

/** The node and every node below it, in the order of the text. */
export function* nodesOf(value: unknown): Generator<SyntaxNode, void, undefined> {
  if (Array.isArray(value)) {
    for (const item of value) yield* nodesOf(item);
  } else if (isNode(value)) {
    yield value;
    for (const child of Object.values(value)) yield* nodesOf(child);
  }
}

function isNode(value: unknown): value is SyntaxNode {
  return typeof value === "object" && value !== null && "type" in value && typeof value.type === "string";
}

/** The line of an offset, counted from 1. */
export const lineOf = ({ text }: SourceFile, offset: number): number => text.slice(0, offset).split("\n").length;
