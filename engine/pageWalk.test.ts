/** Pages under 100,000 random commands of sequences: allocate, fork, copy, append, propose, truncate, preempt, evict, free. */
import { describe, expect, test } from "vitest";
import { PAGE_TOKENS } from "../kernels/fragments/batch.ts";
import { NONE } from "../kernels/kernel.ts";
import { PageWalk, type Parts, REAL } from "../test/pageWalk.ts";
import type { PageGroups } from "./pageGroups.ts";
import { type PageKey, PagePool } from "./pages.ts";
import { type PageCopy, Sequence } from "./sequence.ts";

const EACH = 2_000;
/** Cache groups: one that keeps all, one with a window, and both, as in models whose layers differ. */
const WINDOWS = [[null], [20], [null, 33], [null], [1], [null, 8]];

/** Walks of EACH commands with pools of many sizes; returns how often what happened. */
function walk(commands: number, parts: Parts = REAL): Record<string, number> {
  const counts: Record<string, number> = {};
  for (let seed = 0; seed < commands / EACH; seed++) {
    const one = new PageWalk(seed, 6 + (seed % 20), WINDOWS[seed % WINDOWS.length] ?? [null], parts);
    let done = 0;
    try {
      for (; done < EACH; done++) one.step();
      one.end();
    } catch (cause) {
      throw new Error(`seed ${seed}, command ${done}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
    for (const [what, count] of Object.entries(one.counts)) counts[what] = (counts[what] ?? 0) + count;
  }
  return counts;
}

/** Holds a page that it shares without being counted. */
class Uncounted extends PagePool {
  override share(key: PageKey): number | undefined {
    const page = super.share(key);
    if (page !== undefined) this.release(page);
    return page;
  }
}

/** Gives a page that somebody may hold in place of the last one. */
class Generous extends PagePool {
  override take(): number | undefined {
    return this.available === 1 ? 0 : super.take();
  }
}

/** Goes on from another's pages without being counted. */
class Unheld extends PagePool {
  override hold(): void {}
}

/** Writes into the page that it should have copied. */
class Copyless extends Sequence {
  override fork(cache: PageGroups): readonly PageCopy[] {
    return super.fork(cache).map(({ group, from, to }) => {
      cache.groups[group]?.pool.release(to);
      cache.groups[group]?.pool.hold(from);
      this.tables[group]?.splice(-1, 1, from);
      return { group, from, to: from };
    });
  }
}

/** Takes the whole prompt for computed, though nothing was drawn from its last token. */
class Overdone extends Sequence {
  override fork(cache: PageGroups): readonly PageCopy[] {
    const copies = super.fork(cache);
    if (copies.length > 0) this.computed++;
    return copies;
  }
}

/** Gives back pages that the next row still sees. */
class Forgetful extends Sequence {
  override advance(cache: PageGroups, count: number): void {
    super.advance(cache, count);
    const [{ pool, window } = {}] = cache.groups;
    const at = this.pages.findIndex((page) => page !== NONE);
    if (window === null || pool === undefined || at < 0 || at > this.computed / PAGE_TOKENS - 2) return;
    pool.release(this.pages[at] ?? NONE);
    this.tables[0][at] = NONE;
  }
}

/** Names a page before its last rows are written. */
class Hasty extends Sequence {
  override advance(cache: PageGroups, count: number): void {
    super.advance(cache, count);
    const { computed } = this;
    if (computed % PAGE_TOKENS < PAGE_TOKENS - 2) return;
    this.computed = Math.ceil(computed / PAGE_TOKENS) * PAGE_TOKENS;
    this.publish(cache);
    this.computed = computed;
  }
}

/** Keeps the pages of proposals that were not taken. */
class Hoarding extends Sequence {
  override trim(): void {}
}

/** Leaves a page behind. */
class Leaking extends Sequence {
  override release(cache: PageGroups): void {
    this.tables[0].shift();
    super.release(cache);
  }
}

/** Takes what was computed of other tokens for its own. */
class Credulous extends Sequence {
  override rollBack(cache: PageGroups, tokens: readonly number[]): void {
    const { computed } = this;
    super.rollBack(cache, tokens);
    if (computed <= this.pages.length * PAGE_TOKENS) this.computed = Math.min(computed, tokens.length);
  }
}

/** Gives its first page back first, so that the beginning of a prefix is evicted before its end. */
class Forward extends Sequence {
  override release(cache: PageGroups): void {
    for (const table of this.tables) table.reverse();
    super.release(cache);
  }
}

describe("pages and sequences", () => {
  test("are their model after each of 100,000 commands", { timeout: 120_000 }, () => {
    const counts = walk(100_000);
    const kinds = [
      "join",
      "copy",
      "append",
      "propose",
      "truncate",
      "preempt",
      "leave",
      "evict",
      "found",
      "evicted",
      "in vain",
    ];
    for (const kind of kinds) expect(counts[kind], kind).toBeGreaterThan(500);
    for (const kind of ["fork", "too late", "back behind a window"]) expect(counts[kind], kind).toBeGreaterThan(50);
  });

  test.each<[string, Partial<Parts>, RegExp]>([
    ["a shared page that is not counted", { Pool: Uncounted }, /pages are used, but/],
    ["a fork whose pages are not counted", { Pool: Unheld }, /pages are used, but|held by none|holds/],
    ["a page that two write", { Seq: Copyless }, /somebody holds it|written by/],
    ["a fork that computes no row", { Seq: Overdone }, /page .* has another row|tokens are computed/],
    ["a page given back that a row sees", { Seq: Forgetful }, /another row|holds|are used/],
    ["a page given twice", { Pool: Generous }, /somebody holds it|reserve: expected false/],
    ["a page named before it is full", { Seq: Hasty }, /cached|holds|named|row|tokens are computed/],
    ["pages of proposals that are kept", { Seq: Hoarding }, /holds|used/],
    ["a page that is not given back", { Seq: Leaking }, /used/],
    ["rows of other tokens", { Seq: Credulous }, /tokens are computed/],
    ["a prefix that is evicted from its beginning", { Seq: Forward }, /evicted|holds/],
  ])("find %s", { timeout: 120_000 }, (_, bug, message) => {
    expect(() => walk(20_000, { ...REAL, ...bug })).toThrow(message);
  });
});
