/** The kernels' page: proves every kernel on the browser's adapter and shows the report, as a table and as JSON. */
import type { ConformanceReport } from "../kernels/conformance.ts";
import type { Verdict } from "../kernels/testbed.ts";
import { verdictCells } from "../kernels/verdictCells.ts";
import { failureOf, type KernelsNews, type KernelsOrder } from "./messages.ts";
import { element, hook, say, setState } from "./page.ts";
import { oneOf, onlyKnown } from "./pageOptions.ts";
import { webgpuMissing } from "./webgpuMissing.ts";

declare global {
  interface Window {
    /** The report of this page, for tests. */
    __report?: ConformanceReport;
  }
}

const status = hook("status", HTMLElement);
const progress = hook("progress", HTMLProgressElement);
const rows = new Map<string, { readonly row: HTMLTableRowElement; readonly cases: Verdict[] }>();

try {
  const order = kernelsOrder(location.search);
  const missing = await webgpuMissing(window);
  if (missing !== undefined) throw new Error(missing);
  show(await prove(order));
} catch (error) {
  progress.hidden = true;
  say(status, failureOf(error).message, "error");
  setState("error");
}

/** `kernels.html?suite=all&filter=matmul&limits=default&features=none` */
function kernelsOrder(search: string): KernelsOrder {
  const given = new URLSearchParams(search);
  onlyKnown(given, ["suite", "filter", "limits", "features"]);
  return {
    suite: oneOf(given, "suite", ["named", "all"]) ?? "named",
    filter: given.get("filter") ?? "",
    limits: oneOf(given, "limits", ["adapter", "default"]) ?? "adapter",
    features: oneOf(given, "features", ["all", "none"]) ?? "all",
  };
}

async function prove(order: KernelsOrder): Promise<ConformanceReport> {
  const worker = new Worker(new URL("kernelsWorker.js", document.baseURI), { type: "module" });
  try {
    return await new Promise<ConformanceReport>((resolve, reject) => {
      worker.addEventListener("error", ({ message }) => {
        reject(
          new Error(`kernels: their worker failed: ${message || "its script could not be loaded"}; reload the page`),
        );
      });
      worker.addEventListener("message", ({ data: news }: MessageEvent<KernelsNews>) => {
        if (news.type === "verdict") count(news.verdict, news.index + 1, news.total);
        else if (news.type === "report") resolve(news.report);
        else reject(new Error(news.failure.message));
      });
      worker.postMessage(order);
    });
  } finally {
    worker.terminate();
  }
}

function count(verdict: Verdict, done: number, total: number): void {
  [progress.max, progress.value] = [total, done];
  say(status, `${done} of ${total}: ${verdict.title}`);
  let kernel = rows.get(verdict.kernel);
  if (kernel === undefined) {
    kernel = { row: hook("report", HTMLTableSectionElement).insertRow(), cases: [] };
    rows.set(verdict.kernel, kernel);
  }
  kernel.cases.push(verdict);
  kernel.row.replaceChildren(...verdictCells(verdict.kernel, kernel.cases).map((text) => element("td", text)));
  kernel.row.classList.toggle("failed", !kernel.cases.every(({ passed }) => passed));
  if (!verdict.passed) {
    const failures = hook("failures", HTMLUListElement);
    failures.append(element("li", `${verdict.title}: ${verdict.why}`));
    failures.hidden = false;
  }
}

function show(report: ConformanceReport): void {
  progress.hidden = true;
  const { adapter, cases, passed, failed, pipelines, milliseconds, hash } = report;
  hook("about", HTMLElement).textContent = `${adapter.name} · ${adapter.kind} · limits ${String(report.limits)}`;
  const seconds = (milliseconds / 1000).toFixed(1);
  const sum = `${passed} of ${cases.length} cases passed in ${seconds} s · ${pipelines} pipelines · ${hash.slice(0, 16)}`;
  say(status, sum, failed > 0 ? "error" : "note");
  status.classList.toggle("good", failed === 0);
  const download = hook("download", HTMLButtonElement);
  download.addEventListener("click", () => save(report));
  download.disabled = false;
  window.__report = report;
  setState(failed > 0 ? "error" : "done");
}

function save(report: ConformanceReport): void {
  const url = URL.createObjectURL(new Blob([JSON.stringify(report, undefined, 2)], { type: "application/json" }));
  const link = element("a", "");
  link.href = url;
  link.download = "ingle-kernels.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(url)); // after the click was handled
}
