/** Imports the parts that only Node has, so that a bundle for browsers does not follow them to `node:` modules. */

/** A module of this folder by its name, or undefined outside Node. Deno calls itself Node too, but has WebGPU and files of its own. */
export async function importNode<Module>(name: string): Promise<Module | undefined> {
  const versions = (globalThis as { process?: { versions?: Record<string, string | undefined> } }).process?.versions;
  if (versions?.node === undefined || versions.deno !== undefined) return undefined;
  const extension = import.meta.url.endsWith(".ts") ? "ts" : "js"; // sources in tests, built files in the package
  const file = `./${name}.${extension}`;
  return (await import(/* @vite-ignore */ /* webpackIgnore: true */ file)) as Module;
}
