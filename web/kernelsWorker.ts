/** The proof of the kernels in a dedicated worker: their references take the CPU for seconds. */
import { runConformance } from "../kernels/conformance.ts";
import { failureOf, type KernelsNews, type KernelsOrder } from "./messages.ts";

const tell = (news: KernelsNews) => self.postMessage(news);

self.addEventListener("message", ({ data: order }: MessageEvent<KernelsOrder>) => void prove(order));

async function prove(order: KernelsOrder): Promise<void> {
  try {
    const report = await runConformance({
      ...order,
      onVerdict: (verdict, index, total) => tell({ type: "verdict", verdict, index, total }),
    });
    tell({ type: "report", report });
  } catch (error) {
    tell({ type: "failed", failure: failureOf(error) });
  }
}
