/** The scheduler, step by step: who computes how many tokens when, and who gives way. */
import { describe, expect, test } from "vitest";
import { inARow, LIMITS, newSequence, Play, pagesOf, play, tokens, wish, withForks } from "../test/schedulerPlay.ts";
import { Scheduler } from "./scheduler.ts";

/** "2 5x" for two decoded tokens and a chunk of five, step by step. */
const shape = ({ schedules }: Play) =>
  schedules.map(({ entries }) =>
    entries.map(({ count, drafts }) => (drafts.length === 0 ? `${count}` : `${count}+${drafts.length}`)).join(" "),
  );

describe("Scheduler", () => {
  test("cuts a prompt into chunks and then decodes", () => {
    expect(shape(play(100, [wish(tokens(150))]))).toEqual(["64", "64", "22", "1", "1", "1"]);
  });

  test("decodes before prompts, and fills the step up with these in order of arrival", () => {
    const all = play(100, [
      wish(tokens(10, 1), { count: 6 }),
      wish(tokens(100, 2), { at: 1, count: 2 }),
      wish(tokens(30, 3), { at: 1, count: 2 }),
    ]);
    expect(shape(all)).toEqual(["10", "1 63", "1 37 26", "1 1 4", "1 1", "1"]);
    for (const { entries } of all.schedules) {
      const chunks = entries.map(({ count }) => count);
      expect(chunks.lastIndexOf(1)).toBeLessThanOrEqual(
        Math.max(
          chunks.findIndex((count) => count > 1),
          chunks.length - 1,
        ),
      );
    }
  });

  test("scores and answers take turns", () => {
    const { schedules } = play(100, [wish(tokens(200, 1), { kind: "score", count: 0 }), wish(tokens(5), { count: 4 })]);
    expect(schedules.map(({ kind }) => kind)).toEqual([
      ...["generate", "score", "generate", "score", "generate", "score", "generate", "score"],
    ]);
  });

  test("runs no more sequences at once than it may, in order of arrival", () => {
    const wishes = Array.from({ length: 6 }, (_, i) => wish(tokens(3, i), { count: 3 }));
    const all = play(100, wishes, { rows: 64, scoreRows: 64, sequences: 2 });
    const order = all.schedules.map(({ entries }) => entries.map(({ sequence }) => sequence.arrival));
    expect(order.flat().filter((arrival, i, list) => list.indexOf(arrival) === i)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(Math.max(...order.map((list) => list.length))).toBe(2);
  });

  test("a decoding sequence gets a token in every step of its kind", () => {
    const all = play(100, [wish(tokens(4, 1), { count: 12 }), wish(tokens(500, 2), { at: 2 })]);
    const first = all.jobs[0]?.sequence;
    const steps = all.schedules.filter(({ entries }) => entries.some(({ sequence }) => sequence === first));
    expect(all.schedules.indexOf(steps.at(-1) ?? all.schedules[0] ?? { kind: "score", entries: [], copies: [] })).toBe(
      11,
    );
  });

  test("shares the pages of an earlier prompt, but computes one token at least", () => {
    const prompt = tokens(48);
    const all = play(100, [wish(prompt), wish(prompt, { at: 8 }), wish(prompt.slice(0, 33), { at: 16 })]);
    expect(all.jobs.map(({ sequence }) => sequence.cachedTokens)).toEqual([0, 32, 32]);
  });

  test("shares nothing where layers keep states, and gives each sequence one of its own", () => {
    const prompt = tokens(48);
    const wishes = [
      wish(prompt, { count: 9 }),
      wish(prompt, { at: 1, abortAt: 3 }),
      wish(prompt, { at: 4, count: 12 }),
      wish(prompt, { at: 5, kind: "score", count: 0 }),
    ];
    const all = play(100, wishes, { rows: 40, scoreRows: 16, sequences: 3 }, { shares: false });
    expect(all.jobs.map(({ sequence }) => [sequence.cachedTokens, sequence.state])).toEqual(
      wishes.map(() => [0, undefined]),
    );
    expect(all.pool.cached).toBe(0);
    const some = Array.from({ length: 4 }, (_, i) => wish(tokens(20, i), { count: 40 }));
    expect(play(8, some, LIMITS, { shares: false }).scheduler.preemptions).toBeGreaterThan(0);
  });

  test("a pool that is too small for all makes the youngest wait, and nothing is lost", () => {
    const wishes = Array.from({ length: 4 }, (_, i) => wish(tokens(20, i), { count: 40 }));
    const { scheduler } = play(8, wishes);
    expect(scheduler.preemptions).toBeGreaterThan(0);
  });

  test("a lower priority number is admitted first, and equals by arrival", () => {
    const wishes = [0, 2, 1, 1, -1].map((priority, i) =>
      wish(tokens(3, i), { count: 3, priority, at: i === 0 ? 0 : 1 }),
    );
    const all = play(100, wishes, { rows: 64, scoreRows: 64, sequences: 1 });
    const order = all.schedules.map(({ entries }) =>
      all.jobs.findIndex((job) => job.sequence === entries[0]?.sequence),
    );
    expect(order).toEqual([0, 4, 4, 4, 0, 0, 2, 2, 2, 3, 3, 3, 1, 1, 1]);
  });

  test("one of a better priority takes the place of the last, which goes on where it was", () => {
    const wishes = [
      wish(tokens(20, 1), { count: 8 }),
      wish(tokens(20, 2), { count: 8 }),
      wish(tokens(9, 3), { count: 2, at: 2, priority: -1 }),
      wish(tokens(9, 4), { count: 2, at: 2 }),
    ];
    const all = play(100, wishes, { rows: 64, scoreRows: 64, sequences: 2 });
    const order = all.schedules.map(({ entries }) => entries.map(({ sequence }) => sequence.arrival).join(" "));
    expect(order.slice(0, 5)).toEqual(["1 2", "1 2", "1 3", "3 1", "1 2"]);
    expect(shape(all)[4]).toBe("1 6"); // of 22 tokens, 16 are in a page that nobody took
    expect(all.jobs.map(({ sequence }) => sequence.cachedTokens)).toEqual([0, 0, 0, 0]);
    expect(all.scheduler.preemptions).toBe(1);
  });

  test("a prompt of one token does not overtake a longer one", () => {
    const wishes = [
      wish(tokens(130, 1), { count: 2 }),
      wish(tokens(1, 2), { count: 2 }),
      wish(tokens(1, 3), { count: 2 }),
    ];
    expect(shape(play(100, wishes))).toEqual(["64", "64", "2 1 1", "1 1 1"]);
  });

  test("equals take no place from each other", () => {
    const wishes = Array.from({ length: 5 }, (_, i) => wish(tokens(20, i), { count: 4, at: i, priority: 7 }));
    expect(play(100, wishes, { rows: 64, scoreRows: 64, sequences: 2 }).scheduler.preemptions).toBe(0);
  });

  test("a prompt of a better priority takes pages of those that decode in the same step", () => {
    const low = [1, 2].map((seed) => wish(tokens(30, seed), { count: 30, priority: 1 }));
    const all = play(8, [...low, wish(tokens(100, 3), { at: 3, count: 3 })]);
    const urgent = all.jobs[2]?.sequence;
    const steps = all.schedules.map(({ entries }) => entries.find(({ sequence }) => sequence === urgent)?.count);
    expect(steps.slice(3, 7).reduce((sum: number, count) => sum + (count ?? 0), 0)).toBe(102); // never kept waiting
  });

  test("a score and an answer that fill the pool together both end", () => {
    const score = wish(tokens(76, 1), { kind: "score", count: 0 });
    const long = wish(tokens(48, 2), { count: 20 });
    play(6, [score, long]);
    play(6, [long, score]);
  });

  test("proposals take the rows that are left, by equal shares", () => {
    const proposals = { count: 4, right: 1 };
    expect(shape(play(100, [wish(tokens(5), { count: 12, proposals })]))).toEqual(["5", "1+4", "1+4", "1+4"]);
    const three = [1, 2, 3].map((seed) => wish(tokens(1, seed), { count: 2, proposals }));
    expect(shape(play(100, three, { rows: 8, scoreRows: 8, sequences: 3 }))[0]).toBe("1+1 1+2 1+2");
    const reading = [wish(tokens(2, 1), { count: 6, proposals }), wish(tokens(16, 2), { count: 2, at: 1 })];
    expect(shape(play(100, reading, { rows: 8, scoreRows: 8, sequences: 2 })).slice(0, 4)).toEqual([
      "2",
      "1 7",
      "1 7",
      "1+4 2",
    ]);
  });

  test("wrong proposals cost no token and no page", () => {
    const proposals = { count: 3, right: 0.5 };
    const all = play(3, [wish(tokens(14), { count: 20, proposals })]);
    expect(shape(all).slice(0, 3)).toEqual(["14", "1+3", "1+3"]);
    expect(all.scheduler.preemptions).toBe(0);
  });

  test("answers to one prompt hold its pages together, and each a copy of the last one", () => {
    const pages = new Set<number>();
    const all = new Play(100, LIMITS, withForks(wish(tokens(40), { count: 9 }), [{ count: 3 }, { count: 5 }]));
    all.run((schedule) => {
      for (const { from, to } of schedule.copies) expect(from).not.toBe(to);
      pages.add(all.pool.used);
    });
    all.expectDone();
    // Two full pages, and one each: three answers of 43 to 49 tokens hold 5 pages, then 6 with a fourth.
    expect(shape(all)).toEqual(["40", "1 1 1", "1 1 1", "1 1 1", "1 1", "1 1", "1", "1", "1"]);
    expect(all.schedules.map(({ copies }) => copies.length)).toEqual([0, 2, ...new Array(7).fill(0)]);
    expect(Math.max(...pages)).toBe(5);
    expect(all.jobs.map(({ sequence }) => sequence.cachedTokens)).toEqual([0, 39, 39]);
  });

  test("an answer that finds no page for its copy computes what is in it", () => {
    const all = play(4, withForks(wish(tokens(40), { count: 2 }), [{ count: 2 }, { count: 2 }]));
    expect(all.schedules.flatMap(({ copies }) => copies)).toHaveLength(1);
  });

  test("where the one that read the prompt is gone, the others find its pages", () => {
    const gone = play(100, withForks(wish(tokens(40), { count: 1 }), [{ count: 2 }]));
    expect(shape(gone)).toEqual(["40", "1", "1"]);
    const aborted = play(100, withForks(wish(tokens(150), { count: 9, abortAt: 1 }), [{ count: 2 }]));
    expect(aborted.jobs.map(({ state }) => state)).toEqual(["aborted", "ended"]);
    const few = { rows: 64, scoreRows: 64, sequences: 1 };
    const later = play(100, withForks(wish(tokens(40), { count: 2 }), [{ count: 2 }]), few);
    expect(shape(later)).toEqual(["40", "1", "8", "1"]);
  });

  test("it waits too where a beginning of the prompt is there already", () => {
    const wishes = inARow([[wish(tokens(48), { count: 1 })], withForks(wish(tokens(150), { at: 4, count: 1 }), [{}])]);
    expect(shape(play(100, wishes))).toEqual(["48", "64", "38", "1"]);
  });

  test("while it waits for its prompt, others that come behind fill the step", () => {
    const wishes = inARow([withForks(wish(tokens(10, 1)), [{}]), [wish(tokens(12, 2))]]);
    expect(shape(play(100, wishes))[0]).toBe("10 12");
  });

  test("pages that no row sees any more are free at once", () => {
    const used: number[] = [];
    const all = new Play(9, LIMITS, [wish(tokens(200), { count: 90 })], { window: 20 });
    all.run(() => void used.push(all.pool.used));
    all.expectDone();
    // A chunk of 64 with what its first row sees before it; then one token at a time.
    expect(Math.max(...used)).toBe(6);
    expect(Math.max(...used.slice(-80))).toBe(4);
    expect(all.scheduler.preemptions).toBe(0);
  });

  test("behind a window, a prefix is found where the pages that are seen are there, and no further", () => {
    const prompt = tokens(150);
    const again = (pages: number) => {
      const other = wish(tokens(100, 5), { at: 20, count: 2 });
      const { jobs } = play(pages, [wish(prompt), other, wish(prompt, { at: 40 })], LIMITS, { window: 20 });
      return jobs[2]?.sequence.cachedTokens;
    };
    expect(again(100)).toBe(144);
    expect(again(6)).toBe(0);
  });

  test("where layers keep states, each answer reads its prompt", () => {
    const all = play(100, withForks(wish(tokens(40)), [{}]), LIMITS, { shares: false });
    expect(shape(all)[0]).toBe("40 24");
  });

  test("clear takes out what waits and what runs", () => {
    const pool = pagesOf([[4, null]]);
    const scheduler = new Scheduler(pool, { ...LIMITS, sequences: 1 });
    const sequences = [tokens(20, 1), tokens(20, 2)].map((prompt) => newSequence({ kind: "generate", prompt }));
    for (const sequence of sequences) scheduler.add(sequence);
    expect(scheduler.next()?.entries).toHaveLength(1);
    expect(pool.used).toBe(2);
    expect(new Set(scheduler.clear())).toEqual(new Set(sequences));
    expect([pool.used, scheduler.running, scheduler.waiting]).toEqual([0, 0, 0]);
    expect(scheduler.next()).toBeUndefined();
  });
});

describe("Sequence", () => {
  test("shares no page whose rotations were others", () => {
    const pool = pagesOf([[8, null]]);
    const prompt = tokens(40);
    const variants = [(_: number) => 0, (length: number) => (length > 32 ? 1 : 0)];
    const [first, second, third] = [variants[0], variants[1], variants[0]].map((variant) =>
      newSequence({ kind: "generate", prompt }, variant),
    );
    if (first === undefined || second === undefined || third === undefined) throw new Error("three sequences");
    expect(first.reserve(pool, 40)).toBe(true);
    first.advance(pool, 40);
    first.release(pool);
    second.shareFrom(pool);
    expect(second.computed).toBe(0);
    third.shareFrom(pool);
    expect(third.computed).toBe(32);
  });

  test("with a page of its own, whose row is being computed, holds nobody else's", () => {
    const pool = pagesOf([[8, null]]);
    const sequence = newSequence({ kind: "generate", prompt: tokens(1) });
    sequence.reserve(pool, 1);
    sequence.shareFrom(pool);
    expect([sequence.computed, sequence.pages.length]).toEqual([0, 1]);
  });

  test("a score shares nothing, since the logits of every token are wanted", () => {
    const pool = pagesOf([[8, null]]);
    const [first, second] = [0, 1].map(() => newSequence({ kind: "score", prompt: tokens(40) }));
    if (first === undefined || second === undefined) throw new Error("two sequences");
    first.reserve(pool, 40);
    first.advance(pool, 40);
    first.release(pool);
    second.shareFrom(pool);
    expect(second.pages).toEqual([]);
  });
});
