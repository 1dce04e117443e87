/** Which files of a repository on the hub an engine reads, and which of those are there. */
import { SourceError } from "./errors.ts";
import { staysInside } from "./sourceChecks.ts";

/** Names the shards of a model that has several. */
export const WEIGHT_INDEX = "model.safetensors.index.json";

/** The weights of a model that has no index. */
export const SINGLE_WEIGHTS = "model.safetensors";

// Of the repository's own folder alone: subfolders hold the same model for other programs.
const SMALL =
  /^(config\.json|generation_config\.json|tokenizer[^/]*|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template[^/]*)$/;

const LISTED = 8; // file names in a message

/** The files but for weights, the index included. */
export function smallFiles(paths: readonly string[]): string[] {
  return paths.filter((path) => SMALL.test(path) || path === WEIGHT_INDEX);
}

/** Throws SOURCE_MISSING unless the repository holds a model that ingle could read. */
export function checkHolds(where: string, paths: readonly string[]): void {
  const weights = paths.some((path) => path === WEIGHT_INDEX || path === SINGLE_WEIGHTS);
  if (weights && paths.includes("config.json")) return;
  const lacks = weights ? "config.json" : SINGLE_WEIGHTS;
  const others = paths.filter((path) => !/^(\.gitattributes|README\.md|LICENSE.*)$/.test(path));
  const there = others.length === 0 ? "it is empty" : `it holds ${listed(others)}`;
  throw new SourceError(
    "SOURCE_MISSING",
    `${where}: has no ${lacks}, ${there}; look for the same model as safetensors, in the layout of transformers`,
  );
}

/** The shards that an index names, each once. Empty where it is no index; whoever loads the model says what is wrong with it. */
export function shardsOf(index: unknown): string[] {
  if (typeof index !== "object" || index === null || !("weight_map" in index)) return [];
  const map = index.weight_map;
  if (typeof map !== "object" || map === null) return [];
  const files = Object.values(map).filter((file) => typeof file === "string" && staysInside(file));
  return [...new Set<string>(files)];
}

/** The first names, and how many more there are. */
export function listed(paths: readonly string[]): string {
  const shown = paths.slice(0, LISTED).map((path) => JSON.stringify(path).slice(1, -1));
  return shown.join(", ") + (paths.length > LISTED ? ` and ${paths.length - LISTED} more` : "");
}
