/** What bench/peers/package.json names, loaded where it was installed: nothing of it is a dependency of ingle. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { BenchError } from "../errors.ts";

/** The folder of package.json, from the sources and from dist/ alike. */
const FOLDER = join(dirname(fileURLToPath(import.meta.url)).replace(/([\\/])dist([\\/]bench[\\/]peers)$/, "$1$2"));

/** A package's exports, to be held to an interface by the caller. Throws BenchError where it is not installed. */
export function requireInstalled(name: string): unknown {
  return createRequire(join(FOLDER, "package.json"))(checked(name));
}

/** The path of a file of a package. Throws as `requireInstalled`. */
export function installedFile(name: string, path: string): string {
  return join(FOLDER, "node_modules", checked(name), path);
}

function checked(name: string): string {
  if (existsSync(join(FOLDER, "node_modules", name, "package.json"))) return name;
  throw new BenchError(
    `peers: ${name} is not installed in bench/peers, expected it beside ingle; run \`npm i --ignore-scripts --no-package-lock\` in bench/peers`,
  );
}
