/** The gate before every timing: the kernels that are about to be timed pass their cases on this device, or nothing is timed. */
import type { CompiledKernel } from "../device/pipelines.ts";
import { allCases, namedCases } from "../kernels/cases.ts";
import { headDimFor } from "../kernels/fragments/batch.ts";
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

/** Whether the case of a title may run a kernel: the same family, type and rows a launch, as far as both names tell. */
export function mayRun(title: string, kernel: string): boolean {
  const [family = "", ...words] = kernel.split(" ");
  const [caseFamily = "", caseType = ""] = title.split(" ");
  if (family === "qk_norm") return /[ ,]norm=projection/.test(title);
  // The experts' kernels are proved together: `experts fused affine4/64/f16 …`.
  if (family === "expert_sum") return caseFamily === "experts";
  if (/^expert_(gate_up|down)/.test(family))
    return caseFamily === "experts" && title.split(" ").some((word) => word.split("/")[0] === words[0]);
  const attention = /^(attention|rope)_/;
  if (attention.test(family) ? !attention.test(caseFamily) : caseFamily !== family) return false;
  return words.every((word) => {
    if (/^(f16|bf16|f32|affine\d)$/.test(word)) return caseType.split("/")[0] === word;
    if (word.startsWith("M=")) return new RegExp(` M=\\d+/${word.slice(2)} `).test(title);
    if (word.startsWith("head_dim<=")) {
      const headDim = / head_dim=(\d+)/.exec(title)?.[1];
      return headDim !== undefined && headDimFor(Number(headDim)) === Number(word.slice(10));
    }
    return true; // of a variant that titles do not name: whether it ran is seen afterwards
  });
}

async function hashOf(titles: readonly string[], kernels: readonly CompiledKernel[]): Promise<string> {
  const code = kernels.map(({ name, code }) => `${name}\n${code}`).sort();
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode([...titles, ...code].join("\n")));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
