// `npm test`: runs vitest with what is passed to it, and ends with one line that counts the tests, the kernel cases in the line before.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const scratch = mkdtempSync(join(tmpdir(), "ingle-test-"));
const reportFile = join(scratch, "report.json");

try {
  const { code, output } = await vitest(process.argv.slice(2));
  const { lines, failed } = conclusion(readReport(), output);
  console.log(lines.join("\n"));
  process.exitCode = code !== 0 ? code : failed ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Runs it with its output shown as it comes, and kept: kernel cases are counted in it. */
async function vitest(args) {
  const command = [join(root, "node_modules/vitest/vitest.mjs"), "run", ...args];
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
  const colour = process.stdout.isTTY && process.env.NO_COLOR === undefined ? { FORCE_COLOR: "1" } : {};
  const child = spawn(process.execPath, [...command, ...reporters], {
    cwd: root,
    env: { ...process.env, ...colour },
    stdio: ["inherit", "pipe", "inherit"],
  });
  process.on("SIGINT", () => {}); // the terminal sends it to vitest too, which ends its workers
  const chunks = [];
  child.stdout.on("data", (chunk) => {
    chunks.push(chunk);
    process.stdout.write(chunk);
  });
  const code = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve(status ?? 1));
  });
  return { code, output: stripVTControlCharacters(Buffer.concat(chunks).toString()) };
}

/** What vitest wrote, or undefined where it ended before. */
function readReport() {
  try {
    return JSON.parse(readFileSync(reportFile, "utf8"));
  } catch {
    return undefined;
  }
}

/** The last lines, and whether they tell of a failure that vitest's own exit code may not. */
function conclusion(report, output) {
  const files = report?.testResults ?? [];
  // A file that failed without a test threw while it was loaded: one failure, or a run in which nothing started would have none.
  const unloaded = files.filter(({ status, assertionResults }) => status === "failed" && assertionResults.length === 0);
  const passed = report?.numPassedTests ?? 0;
  const failed = (report?.numFailedTests ?? 0) + unloaded.length;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  const cases = kernelCases(output);
  const uncounted = cases.total === 0 && kernelCasesPassed(files);
  const problems = [
    missingAdapter(files),
    passed + failed === 0 ? "no test ran, expected at least one; see what vitest says above" : undefined,
    uncounted
      ? "kernel cases ran, but none of their lines was found in the output; scripts/test.mjs reads them"
      : undefined,
  ].filter((problem) => problem !== undefined);
  return {
    lines: [
      "",
      ...problems.map((problem) => `npm test: ${problem}`),
      cases.total === 0
        ? "no kernel cases ran"
        : `${cases.passed} of ${cases.total} kernel cases passed on ${cases.adapters.join(", ")}`,
      `${passed} passed, ${failed} failed, ${skipped} skipped`,
    ],
    failed: failed > 0 || problems.length > 0,
  };
}

/** By the lines of kernels/conformance.test.ts: "NAME, limits default: 316 of 316 cases (named) passed, …". */
function kernelCases(output) {
  const lines = [...output.matchAll(/^(.+), limits .+?: (\d+) of (\d+) cases \(\w+\) passed/gm)];
  return {
    passed: lines.reduce((sum, [, , passed]) => sum + Number(passed), 0),
    total: lines.reduce((sum, [, , , total]) => sum + Number(total), 0),
    adapters: [...new Set(lines.map(([, adapter]) => adapter))],
  };
}

function kernelCasesPassed(files) {
  const proved = ({ title, status }) => status === "passed" && / cases pass( |$)/.test(title);
  return files.some(
    ({ name, assertionResults }) => name.endsWith("kernels/conformance.test.ts") && assertionResults.some(proved),
  );
}

/** Why there is no adapter, in the words of the error that says what to install; undefined where there is one. */
function missingAdapter(files) {
  const messages = files.flatMap(({ message, assertionResults }) => [
    message ?? "",
    ...assertionResults.flatMap(({ failureMessages }) => failureMessages ?? []),
  ]);
  const words = /(webgpu: no adapter found|webgpu: the npm package does not load|adapter: no adapter is named).*/;
  return messages.map((text) => words.exec(text)?.[0]).find((text) => text !== undefined);
}
