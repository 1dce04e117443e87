/** The gate before every timing: the kernels that are about to be timed pass their cases on this device, or nothing is timed. */
import type { CompiledKernel } from "../device/pipelines.ts";
import { KV_TYPES } from "../kernels/attention/kv_types.ts";
import { allCases, namedCases } from "../kernels/cases.ts";
import { LAYOUT_NAMES } from "../kernels/formats/layouts.ts";
import { headDimFor, latentWidthFor } from "../kernels/fragments/batch.ts";
import type { Case, Testbed, Verdict } from "../kernels/testbed.ts";
import { BenchError } from "./errors.ts";

/** What was proved before anything was timed. */
export interface Proof {
  /** Cases that passed: all that ran. */
  readonly cases: number;
  /** Kernels that they ran, by name. */
  readonly kernels: readonly string[];
  readonly milliseconds: number;
  /** SHA-256 in hex over the titles of the cases and the code of the kernels: two runs with one hash proved the same. */
  readonly hash: string;
}

/** What is to be proved, and who is told of it. */
export interface GateOptions {
  readonly kernels: readonly CompiledKernel[];
  /** "named" and "all" of kernels/cases.ts as unset. */
  readonly named?: readonly Case[];
  readonly all?: readonly Case[];
  readonly onVerdict?: (verdict: Verdict, index: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Runs the named cases of the kernels, and of all cases those of a kernel that no named one ran. Throws BenchError at the first case
 * that fails, and for a kernel that no case runs.
 */
export async function prove(bed: Pick<Testbed, "check" | "ran">, options: GateOptions): Promise<Proof> {
  const { kernels, named = namedCases(), all = allCases(), onVerdict, signal } = options;
  const start = performance.now();
  const passed: string[] = [];
  const check = async (it: Case) => {
    signal?.throwIfAborted();
    const verdict = await bed.check(it);
    onVerdict?.(verdict, passed.length);
    if (!verdict.passed) {
      throw new BenchError(
        `kernel check: ${verdict.title} failed: ${verdict.why}; nothing is timed on this adapter, see \`ingle kernels\``,
      );
    }
    passed.push(it.title);
  };
  for (const it of named) if (kernels.some(({ name }) => mayRun(it.title, name))) await check(it);
  for (const { name } of kernels) {
    const done = new Set(passed);
    for (const it of all) {
      if (bed.ran.has(name)) break;
      if (!done.has(it.title) && mayRun(it.title, name)) await check(it);
    }
    if (!bed.ran.has(name)) throw new BenchError(`kernel check: no case runs ${name}, expected one; it is not timed`);
  }
  const ran = [...bed.ran].sort();
  return {
    cases: passed.length,
    kernels: ran,
    milliseconds: performance.now() - start,
    hash: await hashOf(passed, kernels),
  };
}

/** Throws BenchError where a kernel was launched that had not been proved: what was timed with it does not count. */
export function checkProved(launched: Iterable<string>, { kernels }: Pick<Proof, "kernels">): void {
  const others = [...launched].filter((name) => !kernels.includes(name));
  if (others.length > 0)
    throw new BenchError(
      `kernel check: ${others.join(", ")} ran unproved, expected none; no number of this run counts`,
    );
}

/** Kernels that cases run together, under a name of their own: by the kernel's family, how the case's title begins. */
const TOGETHER: readonly (readonly [kernel: RegExp, title: RegExp])[] = [
  [/^(attention|rope)_|^qk_norm$/, /^(attention|rope)_/],
  [/^expert_(?!lists)/, /^experts$/],
];

/** Whether the case of a title may run a kernel: the same family, type and rows a launch, as far as both names tell. */
export function mayRun(title: string, kernel: string): boolean {
  const [family = "", ...words] = kernel.split(" ");
  const [caseFamily = ""] = title.split(" ");
  const together = TOGETHER.find(([pattern]) => pattern.test(family));
  if (together === undefined ? caseFamily !== family : !together[1].test(caseFamily)) return false;
  // Narrow activations are what no other kernel can take, nor every device; wide workgroups may be asked for.
  const asked = / M=.*[ ,](bytes|halves|wide)[, ]/.exec(title)?.[1];
  if (asked !== undefined && !kernel.endsWith(` ${asked}`)) return false;
  if (family === "qk_norm") return /[ ,]norm=projection/.test(title);
  return words.every((word) => mayRunVariant(title, word));
}

const TYPES: ReadonlySet<string> = new Set([...LAYOUT_NAMES, ...KV_TYPES]);

/** The same of the variants with a word in their names. */
function mayRunVariant(title: string, word: string): boolean {
  const [caseFamily, first = "", second = ""] = title.split(" ");
  // "experts tiled f16": the type is behind the way that they are computed.
  if (TYPES.has(word)) return (caseFamily === "experts" ? second : first).split("/")[0] === word;
  if (word === "tiled") return first === "tiled";
  if (word.startsWith("M=")) return new RegExp(` M=\\d+/${word.slice(2)} `).test(title);
  if (/^(bytes|halves)$/.test(word)) return new RegExp(`[ ,]${word}[, ]`).test(title);
  if (word.startsWith("head_dim<=")) {
    const headDim = / head_dim=(\d+)/.exec(title)?.[1];
    return headDim !== undefined && headDimFor(Number(headDim)) === Number(word.slice(10));
  }
  if (word.startsWith("width<=")) {
    const [, latent, turned] = / latent=(\d+)\+(\d+)/.exec(title) ?? [];
    return turned !== undefined && latentWidthFor(Number(latent), Number(turned)) === Number(word.slice(7));
  }
  return true; // of a variant that titles do not name: whether it ran is seen afterwards
}

async function hashOf(titles: readonly string[], kernels: readonly CompiledKernel[]): Promise<string> {
  const code = kernels.map(({ name, code }) => `${name}\n${code}`).sort();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode([...titles, ...code].join("\n")));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
