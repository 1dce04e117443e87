/** Statistics of repeated measurements: what a table prints of its samples. */

/** Throws RangeError of no samples: a mean of nothing is not 0. */
export function mean(samples: readonly number[]): number {
  return sum(samples) / atLeastOne(samples).length;
}

/** Standard deviation of the samples' distribution, n − 1 in the denominator; 0 for one sample. */
export function deviation(samples: readonly number[]): number {
  const middle = mean(samples);
  if (samples.length === 1) return 0;
  return Math.sqrt(sum(samples.map((it) => (it - middle) ** 2)) / (samples.length - 1));
}

/** The least sample: of times, the one that the machine's other work met least. */
export function least(samples: readonly number[]): number {
  return percentile(samples, 0);
}

/** The 50th percentile. */
export function median(samples: readonly number[]): number {
  return percentile(samples, 50);
}

/** The value below which `percent` of the samples lie, interpolated between neighbours; 0 is the least, 100 the greatest. */
export function percentile(samples: readonly number[], percent: number): number {
  const sorted = [...atLeastOne(samples)].sort((a, b) => a - b);
  const at = ((sorted.length - 1) * percent) / 100;
  const [low, high] = [sorted[Math.floor(at)] ?? Number.NaN, sorted[Math.ceil(at)] ?? Number.NaN];
  return low + (high - low) * (at - Math.floor(at));
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

function atLeastOne(samples: readonly number[]): readonly number[] {
  if (samples.length === 0) throw new RangeError("statistics: no samples, expected at least one");
  return samples;
}
