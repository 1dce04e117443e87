/** Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/ */

/** Names and values that tell samples of a metric apart. */
export type Labels = Readonly<Record<string, string>>;

/** A value with its labels; `suffix` belongs to the metric's name. */
export interface Sample {
  readonly labels?: Labels;
  readonly value: number;
  readonly suffix?: string;
}

/** One metric with all its samples, in lines. */
export function metricText(
  name: string,
  type: "counter" | "gauge" | "histogram",
  help: string,
  samples: readonly Sample[],
  common: Labels,
): string {
  const lines = samples.map(({ labels = {}, value, suffix = "" }) => {
    const named = Object.entries({ ...common, ...labels }).map(([key, text]) => `${key}="${escaped(text)}"`);
    return `${name}${suffix}{${named.join(",")}} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

const escaped = (text: string) => text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");

/** Counts by labels. */
export class Counter {
  readonly #counts = new Map<string, { readonly labels: Labels; value: number }>();

  add(value: number, labels: Labels = {}): void {
    const key = JSON.stringify(labels);
    const entry = this.#counts.get(key) ?? { labels, value: 0 };
    entry.value += value;
    this.#counts.set(key, entry);
  }

  samples(): readonly Sample[] {
    const all = Array.from(this.#counts.values());
    return all.length === 0 ? [{ value: 0 }] : all;
  }
}

/** Values by size: how many are at most each bound. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.#sum += value;
    this.#count++;
    this.#bounds.forEach((bound, i) => {
      if (value <= bound) this.#counts[i] = (this.#counts[i] ?? 0) + 1;
    });
  }

  samples(): readonly Sample[] {
    const buckets = this.#bounds.map((bound, i) => bucket(String(bound), this.#counts[i] ?? 0));
    return [
      ...buckets,
      bucket("+Inf", this.#count),
      { suffix: "_sum", value: this.#sum },
      { suffix: "_count", value: this.#count },
    ];
  }
}

const bucket = (le: string, value: number): Sample => ({ suffix: "_bucket", labels: { le }, value });
