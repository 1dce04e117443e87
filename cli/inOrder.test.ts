/** Work on many items at once, results in order. */
import { expect, test } from "vitest";
import { inOrder } from "./inOrder.ts";

const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test("results keep the items' order, and no more than asked run at once", async () => {
  let running = 0;
  let most = 0;
  const work = async (ms: number, index: number) => {
    most = Math.max(most, ++running);
    await later(ms);
    running--;
    return `${index}:${ms}`;
  };
  const items = [20, 1, 10, 1, 1, 5, 1];
  const got: string[] = [];
  for await (const value of inOrder(items, 3, work)) got.push(value);
  expect(got).toEqual(items.map((ms, i) => `${i}:${ms}`));
  expect(most).toBe(3);
});

test("a failure is thrown in its turn, and others' failures go by unseen", async () => {
  const got: number[] = [];
  const work = async (item: number) => {
    if (item > 1) throw new Error(`item ${item}`);
    return item;
  };
  const reading = async () => {
    for await (const value of inOrder([0, 1, 2, 3], 4, work)) got.push(value);
  };
  await expect(reading()).rejects.toThrow("item 2");
  expect(got).toEqual([0, 1]);
});
