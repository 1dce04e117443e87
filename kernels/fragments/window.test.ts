import { expect, test } from "vitest";
import { windowRows } from "./window.ts";

test("a window has room for as many rows as 64 KiB hold, and the next begins where a binding may", () => {
  expect(windowRows({ rows: 1, stride: 16384 }, 1)).toBe(1);
  expect(windowRows({ rows: 1, stride: 16416 }, 1)).toBe(0);
  expect(windowRows({ rows: 64, stride: 576 }, 8)).toBe(24);
  expect(windowRows({ rows: 64, stride: 1536 }, 8)).toBe(8);
  expect(windowRows({ rows: 64, stride: 2080 }, 8)).toBe(0);
  expect(windowRows({ rows: 64, stride: 96 }, 1)).toBe(64);
  expect(windowRows({ rows: 4, stride: 6112 }, 1)).toBe(2); // 24,448 bytes a row are no multiple of 256
  expect(windowRows({ rows: 2, stride: 9248 }, 1)).toBe(0); // no second row in the window, and none may begin there
});
