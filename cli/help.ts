/** The pages of --help, made from the commands' own tables. */
import type { Command } from "./command.ts";
import type { FlagTable } from "./flags.ts";
import { COMMON_FLAGS } from "./modelFlags.ts";

const WIDTH = 100;

/** `ingle --help` */
export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ usage }) => nameOf(usage).length));
  const lines = commands.map(({ usage, summary }) => `  ${nameOf(usage).padEnd(width)}  ${summary}`);
  return `ingle runs language models on WebGPU: on a GPU, or on a CPU through a software driver.

usage: ingle COMMAND [FLAGS]

${lines.join("\n")}

  ingle run "Once upon a time"      asks the model that ships with ingle
  ingle COMMAND --help              a command's flags, with examples
  ingle --version

exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted
`;
}

const nameOf = (usage: string) => usage.split(" ")[0] ?? usage;

/** `ingle COMMAND --help` */
export function page({ usage, summary, flags, more }: Command): string {
  const text = `usage: ingle ${usage}\n${summary}\n\n${flagLines({ ...flags, ...COMMON_FLAGS })}`;
  return more === undefined ? text : `${text}\n${more}\n`;
}

function flagLines(flags: FlagTable): string {
  const rows = Object.entries(flags).map(([name, { short, value, help }]) => {
    const long = `--${name}${value === undefined ? "" : ` ${value}`}`;
    return [short === undefined ? `    ${long}` : `-${short}, ${long}`, help] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, help]) => `  ${left.padEnd(width)}  ${wrapped(help, width + 4)}\n`).join("");
}

/** Text in lines of WIDTH, the later ones behind `indent` spaces. */
function wrapped(text: string, indent: number): string {
  let line = "";
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].join(`\n${" ".repeat(indent)}`);
}
