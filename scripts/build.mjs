// Builds dist/: the library, the command, the default model and the pages. `--if-missing` does nothing where dist/ is there.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildPages } from "./buildPages.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const dist = join(root, "dist");
if (process.argv.includes("--if-missing") && existsSync(join(dist, "cli/main.js"))) process.exit(0);

rmSync(dist, { recursive: true, force: true });
const tsc = join(root, "node_modules/typescript/bin/tsc");
// The compiler's words go to stderr: stdout belongs to what `npm start` answers.
const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], {
  cwd: root,
  stdio: ["ignore", 2, 2],
});
if (status !== 0) process.exit(status ?? 1);
for (const name of ["default", "default-draft"])
  cpSync(join(root, "models", name), join(dist, "models", name), { recursive: true });
try {
  await buildPages(join(dist, "pages"));
} catch (error) {
  console.error(`build: dist/pages was not built: ${error instanceof Error ? error.message : String(error)}`);
  // The command works without pages, so installing and starting it do not fail for them: `npm run build` does.
  const byTheWay = ["prepare", "prestart"].includes(process.env.npm_lifecycle_event ?? "");
  process.exitCode = byTheWay ? 0 : 1;
}
