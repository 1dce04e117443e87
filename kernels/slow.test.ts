import { writeFileSync } from "node:fs";
import { test } from "vitest";
import { runConformance } from "./conformance.ts";

test("t", async () => {
  const r = await runConformance({
    suite: (process.env.S ?? "named") as "named",
    filter: process.env.F ?? "",
    limits: "default",
  });
  const byKernel = new Map<string, number>();
  for (const c of r.cases) byKernel.set(c.kernel, (byKernel.get(c.kernel) ?? 0) + c.milliseconds);
  const slow = r.cases.toSorted((a, b) => b.milliseconds - a.milliseconds).slice(0, 60);
  const close = r.cases
    .filter((c) => c.limit > 0)
    .toSorted((a, b) => b.error / b.limit - a.error / a.limit)
    .slice(0, 25);
  const bad = r.cases.filter((c) => !c.passed);
  writeFileSync(
    "/tmp/kt/slow.txt",
    [
      `${r.adapter.name} ${r.passed}/${r.cases.length} ${r.pipelines} ${r.milliseconds}`,
      ...[...byKernel].map(String),
      ...slow.map((c) => `${Math.round(c.milliseconds)} ${c.title}`),
      "CLOSE",
      ...close.map((c) => `${c.error.toExponential(1)} ${c.limit} ${c.title}`),
      "BAD",
      ...bad.map((c) => `${c.title} :: ${c.why}`),
    ].join("\n"),
  );
}, 3600000);
