// Builds the pages: static files that any web server can serve, the default model beside them. `node scripts/buildPages.mjs FOLDER`
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Scripts of pages and of their workers: one bundle each, so that a page takes one request a script. */
const SCRIPTS = ["chat", "engineWorker", "kernels", "kernelsWorker"];
const STATIC = ["chat.html", "kernels.html", "pages.css"];

/** Bundles web/ into the folder `pages`, which is made anew. Throws where the bundler is missing or a source is wrong. */
export async function buildPages(pages) {
  const { build } = await import("rolldown"); // here, so that the library builds where the bundler does not load
  rmSync(pages, { recursive: true, force: true });
  mkdirSync(pages, { recursive: true });
  const modules = [];
  for (const name of SCRIPTS) {
    const { output } = await build({
      input: join(root, `web/${name}.ts`),
      platform: "browser",
      tsconfig: false, // nothing in it matters here
      output: { file: join(pages, `${name}.js`), format: "esm", minify: true, codeSplitting: false },
      logLevel: "warn",
    });
    modules.push(...output.flatMap(({ moduleIds = [] }) => moduleIds));
  }
  writeFileSync(join(pages, "licenses.txt"), licenses(modules));
  for (const name of STATIC) cpSync(join(root, "web", name), join(pages, name));
  cpSync(join(root, "models/default"), join(pages, "models/default"), { recursive: true });
}

/** The licences of the packages that are in the bundles, as they ask for. Throws where one has none to hand on. */
function licenses(modules) {
  const names = modules.flatMap((id) => /node_modules[\\/]((?:@[^\\/]+[\\/])?[^\\/]+)/.exec(id)?.[1] ?? []);
  const texts = [...new Set(names)].sort().map((name) => {
    const folder = join(root, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const shared = license === "Apache-2.0" ? join(root, "LICENSE") : undefined; // the same text
    const path = file === undefined ? shared : join(folder, file);
    if (path === undefined || !existsSync(path))
      throw new Error(`${name}: has no licence file, expected one; is it to be bundled?`);
    return `${name} ${version} (${license})\n\n${readFileSync(path, "utf8").trim()}\n`;
  });
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await buildPages(resolve(process.argv[2] ?? join(root, "dist/pages")));
}
