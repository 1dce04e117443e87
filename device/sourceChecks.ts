/** What every source of bytes checks before it reads: names that stay inside their folder, ranges that stay inside their file. */

import { SourceError } from "./errors.ts";

// What a path, URL or shell would read as something else than the name of a file: drive letters, schemes, Windows separators.
const FORBIDDEN = /[:\\]|\p{Cc}/u;

/** Whether `name` is a relative path with forward slashes that cannot leave its folder: no "..", no root, no scheme, no drive. */
export function staysInside(name: string): boolean {
  if (FORBIDDEN.test(name)) return false;
  return name.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

/** Throws SOURCE_NAME unless `name` stays inside `location`. */
export function checkName(location: string, name: string): void {
  if (staysInside(name)) return;
  const printed = JSON.stringify(name.slice(0, 120));
  throw new SourceError(
    "SOURCE_NAME",
    `${location}: ${printed} leaves the folder, expected a plain relative name; files of a checkpoint must lie inside its folder`,
  );
}

/** Throws SOURCE_SHORT unless [begin, end) lies inside the `size` bytes of the source called `name`. */
export function checkRange(name: string, size: number, begin: number, end: number): void {
  if (Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end && end <= size) return;
  throw new SourceError(
    "SOURCE_SHORT",
    `${name}: has ${size} bytes, ${begin} to ${end} were asked for; the file may be cut short`,
  );
}
