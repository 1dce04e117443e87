/** Which ingle this is. */
import { existsSync, readFileSync } from "node:fs";

/** The version in package.json, which is one folder up from the sources and two from what is built of them. */
export function version(): string {
  const files = ["../package.json", "../../package.json"].map((path) => new URL(path, import.meta.url));
  const file = files.find((it) => existsSync(it));
  const manifest: unknown = file === undefined ? undefined : JSON.parse(readFileSync(file, "utf8"));
  const found =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : undefined;
  return String(found);
}
