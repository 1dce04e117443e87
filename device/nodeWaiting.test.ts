/** That the event loop sleeps while a device is waited for, and only then. */
import { describe, expect, test } from "vitest";
import { waitFor } from "./nodeWaiting.ts";

/** Turns of the event loop until `end` settles. */
async function turnsUntil(end: Promise<unknown>): Promise<number> {
  let [turns, ended] = [0, false];
  end.then(
    () => (ended = true),
    () => (ended = true),
  );
  while (!ended) {
    await new Promise((resolve) => setImmediate(resolve));
    turns++;
  }
  return turns;
}

const later = (milliseconds: number) => new Promise<string>((resolve) => setTimeout(resolve, milliseconds, "done"));

describe("waitFor", () => {
  test("settles as what is waited for", async () => {
    expect(await waitFor(later(1))).toBe("done");
    await expect(waitFor(Promise.reject(new Error("lost")))).rejects.toThrow("lost");
  });

  test.skipIf(process.platform === "win32")("turns the loop less often, until the last arrival", async () => {
    const arrivals = [later(50), later(300)].map(waitFor);
    const waiting = await turnsUntil(Promise.all(arrivals));
    const free = await turnsUntil(later(300));
    expect(waiting).toBeLessThan(free / 10);
  });
});
