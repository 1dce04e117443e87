/** The built `ingle` command, run as a process of its own. */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./sourceFiles.ts";

/** What `ingle` starts. */
export const ENTRY = join(ROOT, "dist/cli/main.js");

/** Builds where a source is newer than the build. */
export function buildIfStale(): void {
  if (!isStale()) return;
  const { status, stderr } = spawnSync(process.execPath, [join(ROOT, "scripts/build.mjs")], { encoding: "utf8" });
  if (status !== 0) throw new Error(`scripts/build.mjs: exit ${status}, expected 0: ${stderr}`);
}

function isStale(): boolean {
  if (!existsSync(ENTRY)) return true;
  const built = statSync(ENTRY).mtimeMs;
  return ["device", "kernels", "models", "engine", "gateway", "bench", "cli"].some((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" }).some(
      (file) => /(?<!\.test)\.ts$/.test(file) && statSync(join(ROOT, folder, file)).mtimeMs > built,
    ),
  );
}

/** How a command ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a command is run. */
export interface CommandOptions {
  readonly cwd?: string;
  readonly input?: string;
  /** Beside the test's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** Sees what came so far, and may send Ctrl-C. */
  readonly onStdout?: (text: string, kill: () => void) => void;
  /** May send a signal at any time. */
  readonly onStart?: (send: (signal: NodeJS.Signals) => void) => void;
}

/** A command that goes on until it is told to end. */
export interface Running {
  /** What the pattern finds in what came on stderr, once it is there. Fails where the command ends before. */
  found(pattern: RegExp): Promise<RegExpExecArray>;
  send(signal: NodeJS.Signals): void;
  readonly ended: Promise<Ended>;
}

/** Starts the command. */
export function running(words: readonly string[], options: CommandOptions = {}): Running {
  const { cwd, env = {} } = options;
  const child = spawn(process.execPath, [ENTRY, ...words], { cwd, env: { ...process.env, ...env } });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })));
  return {
    found: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = pattern.exec(stderr);
          if (found !== null) resolve(found);
        };
        look();
        child.stderr.on("data", look);
        void ended.then(() => reject(new Error(`${words[0]}: ended without ${pattern}: ${stderr}`)));
      }),
    send: (signal) => child.kill(signal),
    ended,
  };
}

/** Runs the command to its end. */
export function command(words: readonly string[], options: CommandOptions = {}): Promise<Ended> {
  const { cwd, input = "", env = {}, onStdout, onStart } = options;
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [ENTRY, ...words], { cwd, env: { ...process.env, ...env } });
    onStart?.((signal) => child.kill(signal));
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      onStdout?.(stdout, () => child.kill("SIGINT"));
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.on("error", () => {}); // a command that reads no stdin may be gone already
    child.stdin.end(input);
  });
}
