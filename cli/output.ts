/** What goes to stdout: lines of JSON, tables, and text that cannot harm a terminal. */

// Control characters but tab and newline: an escape sequence in a model's answer would otherwise be obeyed.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
// Whatever JSON.stringify leaves as it is and a terminal may hide, reorder or obey.
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]/gu;

/** Text with control characters and changes of direction spelt out as `\u…`; tabs, newlines and scripts stay. */
export function printable(text: string): string {
  return text.replace(CONTROL, escapeUnits);
}

/** One line of JSON, in which nothing invisible is left: all such code points are `\u…`. */
export function jsonLine(value: unknown): string {
  return `${JSON.stringify(value).replace(HIDDEN, escapeUnits)}\n`;
}

function escapeUnits(point: string): string {
  return Array.from({ length: point.length }, (_, i) => {
    return `\\u${point.charCodeAt(i).toString(16).padStart(4, "0")}`;
  }).join("");
}

/** Rows under a head, columns as wide as their widest cell; columns whose head begins with ">" are set to the right. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const right = head.map((name) => name.startsWith(">"));
  const names = head.map((name) => name.replace(/^>/, ""));
  const all = [names, ...rows];
  const widths = names.map((_, column) => all.reduce((most, row) => Math.max(most, (row[column] ?? "").length), 0));
  const line = (row: readonly string[]) =>
    widths
      .map((width, column) => (right[column] ? (row[column] ?? "").padStart(width) : (row[column] ?? "").padEnd(width)))
      .join("  ")
      .trimEnd();
  return `${all.map(line).join("\n")}\n`;
}

/** Writes to stdout. What a closed pipe refuses is dropped; main.ts ends the command then. */
export function print(text: string): void {
  process.stdout.write(text);
}
