/** The scheduler with any requests: everybody ends, nobody is overtaken, the sums agree. */
import fc from "fast-check";
import { describe, test } from "vitest";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { inARow, play, tokens, type Wish, withForks } from "../test/schedulerPlay.ts";

describe("Scheduler", () => {
  test("any requests, at any time, with any pool that holds the longest: all end, with what each would get alone", {
    timeout: 300_000,
  }, () => {
    const MOST = 90; // tokens of a request
    const abort = fc.option(fc.nat(60), { nil: undefined, freq: 2 });
    const anyWish = fc
      .record({
        kind: fc.constantFrom<Wish["kind"]>("generate", "generate", "score"),
        length: fc.integer({ min: 1, max: 70 }),
        family: fc.nat(1), // few beginnings, so that pages are shared
        count: fc.integer({ min: 1, max: 20 }),
        at: fc.nat(30),
        priority: fc.constantFrom(0, 0, -1, 5),
        abortAt: abort,
        abortEarly: fc.boolean(),
        proposals: fc.record({ count: fc.nat(9), right: fc.constantFrom(0, 0.5, 1) }),
        forks: fc.array(fc.record({ count: fc.integer({ min: 1, max: 20 }), abortAt: abort }), { maxLength: 3 }),
      })
      .map(({ kind, length, family, count, forks, ...more }) => {
        const prompt = tokens(length, family);
        if (kind === "score") return withForks({ kind, prompt, count: 0, ...more }, []);
        return withForks({ kind, prompt, count, ...more }, forks);
      });
    const anyLimits = fc.record({
      rows: fc.constantFrom(1, 2, 5, 16, 64),
      scoreRows: fc.constantFrom(1, 4, 16),
      sequences: fc.constantFrom(1, 2, 3, 8),
    });
    const least = Math.ceil(MOST / PAGE_TOKENS);
    fc.assert(
      fc.property(
        fc.oneof(fc.constant(least), fc.integer({ min: least, max: 3 * least })), // often the least, where most give way
        fc.array(anyWish, { minLength: 1, maxLength: 8 }),
        anyLimits,
        fc.constantFrom(null, null, 1, 20, 50),
        (pages, wishes, limits, window) => {
          const sequences = Math.min(limits.sequences, limits.rows);
          play(pages, inARow(wishes), { ...limits, sequences }, { window });
        },
      ),
      { numRuns: process.env.INGLE_SUITE === "full" ? 3000 : 150 },
    );
  });
});
