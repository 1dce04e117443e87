/** How many proposals pay, with times that are made up. */
import { describe, expect, test } from "vitest";
import { bestLength, type DraftCosts, DraftLength } from "./draftLength.ts";
import { StepTimes } from "./stepTimes.ts";

/** An adapter on which a step of so many rows takes so many milliseconds. */
type Adapter = (rows: number) => number;
const flat: Adapter = () => 10;
const proportional: Adapter = (rows) => 10 * rows;

function timesOf(adapter: Adapter, sizes = [1, 2, 4, 8, 16, 32, 64]): StepTimes {
  const times = new StepTimes();
  for (const rows of sizes) for (let i = 0; i < 2; i++) times.add(rows, adapter(rows));
  return times;
}
const costs = (adapter: Adapter, more: Partial<DraftCosts> = {}): DraftCosts => ({
  steps: timesOf(adapter),
  sequences: 1,
  proposal: 1,
  catchUp: 0,
  ...more,
});

describe("bestLength", () => {
  test("more where rows are free, none where each costs a step", () => {
    expect(bestLength(0.9, 7, costs(flat))).toBe(7);
    expect(bestLength(0.3, 7, costs(flat))).toBe(1);
    expect(bestLength(0.9, 7, costs(proportional))).toBe(0);
    expect(bestLength(0, 7, costs(flat))).toBe(0);
  });

  test("is what a table by hand says", () => {
    // a = 1/2, t(1) = 10, t(2) = 11, t(4) = 12: 1/10, 1.5/12, 1.75/14, 1.875/15
    const adapter: Adapter = (rows) => (rows === 1 ? 10 : rows === 2 ? 11 : rows <= 4 ? 12 : 1000);
    expect(bestLength(0.5, 7, costs(adapter))).toBe(1);
    expect(bestLength(0.5, 7, costs(adapter, { proposal: 0 }))).toBe(3);
  });

  test("counts the rows of all that decode", () => {
    const limited: Adapter = (rows) => (rows <= 16 ? 10 : 10 * rows);
    expect(bestLength(0.9, 7, costs(limited, { sequences: 4 }))).toBe(3);
  });

  test("of steps that nobody measured it tries the shortest", () => {
    const known = (sizes: number[]) => costs(flat, { steps: timesOf(flat, sizes) });
    expect(bestLength(0.9, 7, known([1]))).toBe(1);
    expect(bestLength(0.9, 7, known([1, 2]))).toBe(3);
    expect(bestLength(0.9, 7, known([1, 2, 4]))).toBe(7);
  });
});

/** Time for `tokens` tokens, by a model of an engine: a proposal costs `proposal`, and is accepted as `right` says. */
function play(
  length: DraftLength,
  adapter: Adapter,
  proposal: number,
  right: (token: number) => boolean,
  tokens: number,
) {
  const steps = new StepTimes();
  let [time, token] = [0, 0];
  const ks: number[] = [];
  while (token < tokens) {
    const k = length.next(token, 7, { steps, sequences: 1, proposal, catchUp: 0 });
    let accepted = 0;
    while (accepted < k && right(token + accepted)) accepted++;
    length.learn(k, accepted);
    const took = adapter(2 ** Math.ceil(Math.log2(k + 1)));
    steps.add(k + 1, took);
    time += took + k * proposal;
    token += accepted + 1;
    ks.push(k);
  }
  return { time, ks };
}

describe("DraftLength", () => {
  const adaptive = () => new DraftLength({ most: 7 });

  test.each([
    ["flat", flat, 2],
    ["proportional", proportional, 2],
    ["a draft as slow as its target", flat, 10],
  ] as const)("a useless draft costs a tenth at most after 64 tokens: %s", (_, adapter, proposal) => {
    const begun = adaptive();
    play(begun, adapter, proposal, () => false, 64);
    const { time } = play(begun, adapter, proposal, () => false, 2000);
    expect(time).toBeLessThan(1.1 * 2000 * adapter(1));
  });

  test("a good draft is used where rows are cheap, up to the most", () => {
    const { time, ks } = play(adaptive(), flat, 0.5, (token) => token % 10 !== 0, 1000);
    expect(ks.at(-1)).toBe(7);
    expect(time).toBeLessThan(0.5 * 1000 * 10);
  });

  test("and is left alone where each row costs a step", () => {
    const { ks } = play(adaptive(), proportional, 0.5, () => true, 100);
    expect(ks.slice(-20)).toEqual(new Array(20).fill(0));
  });

  test("a text that becomes predictable is found out", () => {
    const length = adaptive();
    play(length, flat, 1, () => false, 200);
    const { ks } = play(length, flat, 1, () => true, 600);
    expect(ks.at(-1)).toBe(7);
  });

  test("does not catch up where that costs more than it could gain", () => {
    const length = adaptive();
    const steps = timesOf(flat);
    for (let i = 0; i < 40; i++) length.learn(1, 0);
    const ks = Array.from({ length: 500 }, (_, i) =>
      length.next(i, 7, { steps, sequences: 1, proposal: 1, catchUp: 1e6 }),
    );
    expect(new Set(ks)).toEqual(new Set([0]));
  });

  test("says how many steps nothing is proposed for", () => {
    const length = adaptive();
    const dear = costs(proportional, { proposal: 5 });
    expect(length.plainSteps(10)).toBe(1); // nothing is known yet
    expect([length.next(10, 7, dear), length.plainSteps(10)]).toEqual([0, 31]);
    expect([length.next(41, 7, dear), length.plainSteps(41)]).toEqual([0, 32]); // a try is due, but would not pay
    const cheap = costs(flat);
    expect([length.next(72, 7, dear), length.plainSteps(72)]).toEqual([0, 16]); // a run is no shorter
    expect([length.next(73, 0, cheap), length.plainSteps(73)]).toEqual([0, 16]);
  });

  test("a try that is due late is made then", () => {
    const length = adaptive();
    const cheap = costs(flat);
    for (let i = 0; i < 40; i++) length.learn(1, 0);
    expect([length.next(10, 7, cheap), length.plainSteps(10)]).toEqual([0, 31]);
    expect([length.next(50, 7, cheap), length.plainSteps(50)]).toEqual([3, 1]);
  });

  test("a draft that is not right often enough costs little, though tries now and then look well", () => {
    // Pays where nine of ten are right; three in a row are right every other time here.
    const adapter: Adapter = (rows) => (rows === 1 ? 10 : 19);
    const right = (token: number) => (token * 7919) % 5 !== 0;
    const { time, ks } = play(adaptive(), adapter, 4, right, 2000);
    expect(time).toBeLessThan(1.05 * 2000 * 10);
    expect(ks.filter((k) => k > 0).length).toBeGreaterThan(3);
  });

  test("a try that fails is followed by twice as many plain steps", () => {
    const length = adaptive();
    for (let i = 0; i < 40; i++) length.learn(1, 0);
    const steps = timesOf(flat);
    const at = { steps, sequences: 1, proposal: 1, catchUp: 0 };
    expect([length.next(100, 7, at), length.plainSteps(100)]).toEqual([0, 31]);
    expect([length.next(131, 7, at), length.plainSteps(131)]).toEqual([3, 1]);
    length.learn(3, 1);
    expect([length.next(133, 7, at), length.plainSteps(133)]).toEqual([0, 61]);
  });

  test("a fixed number is kept, but for what is possible", () => {
    const length = new DraftLength({ fixed: 4, most: 7 });
    const { ks } = play(length, proportional, 5, () => false, 50);
    expect(new Set(ks)).toEqual(new Set([4]));
    expect(length.next(50, 2, costs(flat))).toBe(2);
    expect(length.next(50, 0, costs(flat))).toBe(0);
  });
});

describe("StepTimes", () => {
  test("leaves out the first step of a size, and takes the middle one of the last", () => {
    const times = new StepTimes();
    times.add(3, 5000);
    expect([times.of(3), times.atLeast(4)]).toEqual([undefined, 0]);
    for (const ms of [30, 20, 40]) times.add(4, ms);
    expect([times.of(3), times.of(2), times.atLeast(8)]).toEqual([30, undefined, 30]);
    for (let i = 0; i < 6; i++) times.add(4, 50);
    expect(times.of(4)).toBe(50);
  });

  test("forgets what was long ago", () => {
    const times = timesOf(flat, [1, 8]);
    for (let i = 0; i < 2000; i++) times.add(1, 10);
    expect([times.of(8), times.of(1)]).toEqual([undefined, 10]);
  });
});
