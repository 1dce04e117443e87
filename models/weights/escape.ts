/** Makes names that came out of a file safe to print: no terminal escapes, no reordering of text, no endless lines. */

/** Longest name printed whole, in code points; real tensor names stay below 120. */
const PRINTED = 160;

// Everything that moves the cursor, reorders, hides or breaks text: control, format (bidi, zero width, tags), lone surrogate,
// private and unassigned code points, line separators, and all spaces but U+0020.
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}|\\/u;

/**
 * `name` as it may be printed in a message, a table or a log: unsafe code points and the backslash become `\u{…}` and `\\`, so
 * that two different names never print alike, and what is longer than `limit` code points is cut with its length named.
 */
export function escapeName(name: string, limit: number = PRINTED): string {
  let out = "";
  let printed = 0;
  for (const point of name) {
    if (printed === limit) return `${out}… (${name.length} characters)`;
    out += UNSAFE.test(point) ? escapePoint(point) : point;
    printed++;
  }
  return out;
}

function escapePoint(point: string): string {
  return point === "\\" ? "\\\\" : `\\u{${(point.codePointAt(0) ?? 0).toString(16)}}`;
}

/** The first bytes of a file as text, for messages such as "begins with <!DOCTYPE html>". */
export function escapeBytes(bytes: Uint8Array, limit: number = 40): string {
  const head = bytes.subarray(0, limit);
  let text = "";
  for (const byte of head) text += byte < 0x80 ? String.fromCharCode(byte) : "\uFFFD";
  return escapeName(text, limit) + (bytes.length > limit ? "…" : "");
}

/** The first `limit` names, escaped, and how many more there are. */
export function listNames(names: readonly string[], limit: number = 8): string {
  const shown = names.slice(0, limit).map((name) => escapeName(name));
  const more = names.length - shown.length;
  return shown.join(", ") + (more > 0 ? ` and ${more} more` : "");
}
