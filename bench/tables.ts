/** Tables for other programs: Markdown for pages and issues, CSV for spreadsheets. A head that begins with ">" is set to the right. */

/** A table in GitHub's Markdown. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |\n`;
  const names = head.map((name) => cell(name.replace(/^>/, "")));
  const rule = head.map((name) => (name.startsWith(">") ? "---:" : "---"));
  return line(names) + line(rule) + rows.map((row) => line(row.map(cell))).join("");
}

/** A bar or a line break would end a cell. */
const cell = (text: string) =>
  text
    .replaceAll("\\", "\\\\")
    .replaceAll("|", "\\|")
    .replace(/\s*\n\s*/g, " ");

/** RFC 4180, with "\n" between lines. */
export function csv(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const field = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return [head.map((name) => name.replace(/^>/, "")), ...rows].map((row) => `${row.map(field).join(",")}\n`).join("");
}
