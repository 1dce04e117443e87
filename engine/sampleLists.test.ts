import { expect, test } from "vitest";
import { SampleLists } from "./sampleLists.ts";

test("blocks lie one behind the other, with the tokens of those that look at them", () => {
  const lists = new SampleLists();
  lists.begin();
  expect(lists.words).toHaveLength(0);
  expect(lists.add({ block: Uint32Array.of(1, 2), history: false }, [7, 8])).toBe(0);
  expect(lists.add({ block: Uint32Array.of(3), history: true }, [7, 8])).toBe(2);
  expect(lists.add({ block: Uint32Array.of(4), history: true }, [7], [9])).toBe(5);
  expect([...lists.words]).toEqual([1, 2, 3, 7, 8, 4, 7, 9]);
  lists.begin();
  expect(lists.add({ block: Uint32Array.of(4), history: false }, [])).toBe(0);
  expect([...lists.words]).toEqual([4]);
});

test("a list that outgrows its words keeps what is there", () => {
  const lists = new SampleLists();
  lists.begin();
  lists.add({ block: Uint32Array.of(5, 6), history: false }, []);
  const tokens = Array.from({ length: 5000 }, (_, i) => i);
  lists.add({ block: Uint32Array.of(9), history: true }, tokens);
  expect([...lists.words]).toEqual([5, 6, 9, ...tokens]);
});
