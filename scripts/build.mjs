// Builds dist/: the library, the command and the default model. `--if-missing` does nothing where dist/ is there.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

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
cpSync(join(root, "models/default"), join(dist, "models/default"), { recursive: true });
