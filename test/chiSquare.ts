/** Whether counts fit probabilities: Pearson's chi-square. */

/** Counts expected below this are pooled: the test's distribution is that of normal ones. */
const LEAST_EXPECTED = 5;

/** p of counts at least this far from the probabilities. 1 where there is but one outcome. */
export function chiSquareP(counts: ArrayLike<number>, probabilities: ArrayLike<number>): number {
  const cells = pooled(counts, probabilities);
  if (cells.length < 2) return 1;
  const statistic = cells.reduce((sum, { count, expected }) => sum + (count - expected) ** 2 / expected, 0);
  return upperGamma((cells.length - 1) / 2, statistic / 2);
}

interface Cell {
  count: number;
  expected: number;
}

/** Cells of at least LEAST_EXPECTED: the small ones together, with the smallest of the others where they are still too few. */
function pooled(counts: ArrayLike<number>, probabilities: ArrayLike<number>): Cell[] {
  const total = Array.from(counts).reduce((a, b) => a + b, 0);
  const cells = Array.from(counts, (count, i) => ({ count, expected: total * (probabilities[i] ?? Number.NaN) }))
    .filter(({ count, expected }) => count > 0 || expected > 0)
    .sort((a, b) => a.expected - b.expected);
  const kept: Cell[] = [];
  let pool: Cell = { count: 0, expected: 0 };
  for (const { count, expected } of cells) {
    pool = { count: pool.count + count, expected: pool.expected + expected };
    if (pool.expected < LEAST_EXPECTED) continue;
    kept.push(pool);
    pool = { count: 0, expected: 0 };
  }
  const last = kept.at(-1);
  if (last === undefined) return [pool];
  last.count += pool.count;
  last.expected += pool.expected;
  return kept;
}

/** Q(a, x), the upper regularised incomplete gamma function: by its series below a + 1, by its continued fraction above. */
function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1;
  const front = Math.exp(a * Math.log(x) - x - logGamma(a));
  if (x < a + 1) {
    let [term, sum] = [1 / a, 1 / a];
    for (let n = 1; Math.abs(term) > 1e-15 * sum; n++) {
      term *= x / (a + n);
      sum += term;
    }
    return 1 - front * sum;
  }
  // Lentz's method.
  let b = x + 1 - a;
  let c = 1e300;
  let d = 1 / b;
  let fraction = d;
  for (let n = 1; n < 1e5; n++) {
    const numerator = -n * (n - a);
    b += 2;
    d = 1 / (numerator * d + b);
    c = b + numerator / c;
    const step = c * d;
    fraction *= step;
    if (Math.abs(step - 1) < 1e-15) break;
  }
  return front * fraction;
}

/** log Γ(z) for z > 0. Source: Lanczos, g = 7, 9 terms. */
function logGamma(z: number): number {
  const terms = [
    676.5203681218851, -1259.1392167224028, 771.3234287776531, -176.6150291621406, 12.507343278686905,
    -0.13857109526572012, 9.984369578019572e-6, 1.5056327351493116e-7,
  ];
  const sum = terms.reduce((total, term, i) => total + term / (z + i), 0.9999999999998099);
  const t = z + 6.5;
  return 0.5 * Math.log(2 * Math.PI) + (z - 0.5) * Math.log(t) - t + Math.log(sum);
}

/**
 * p of two counts of the same outcomes at least this far apart: the G-test of homogeneity, 2 Σ O ln(O / E), E from both together.
 * Outcomes that are expected too seldom in either are pooled.
 */
export function gTestP(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const sum = (counts: ArrayLike<number>) => Array.from(counts).reduce((x, y) => x + y, 0);
  const [all, mine] = [sum(a) + sum(b), Math.min(sum(a), sum(b))];
  const cells: [number, number][] = [];
  let pool: [number, number] = [0, 0];
  const pairs = Array.from(a, (count, i): [number, number] => [count, b[i] ?? Number.NaN]);
  for (const [x, y] of pairs.sort((one, other) => one[0] + one[1] - other[0] - other[1])) {
    pool = [pool[0] + x, pool[1] + y];
    if (((pool[0] + pool[1]) * mine) / all < LEAST_EXPECTED) continue;
    cells.push(pool);
    pool = [0, 0];
  }
  const last = cells.at(-1);
  if (last !== undefined) [last[0], last[1]] = [last[0] + pool[0], last[1] + pool[1]];
  if (cells.length < 2) return 1;
  const term = (count: number, row: number, both: number) =>
    count === 0 ? 0 : count * Math.log((count * all) / (row * both));
  const g = cells.reduce((total, [x, y]) => total + term(x, sum(a), x + y) + term(y, sum(b), x + y), 0);
  return upperGamma((cells.length - 1) / 2, g); // 2 g, halved
}
