/** The lock between processes that download one model. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { withLock } from "./nodeHubLock.ts";

let cache = "";
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "ingle-lock-"));
  return () => rmSync(cache, { recursive: true });
});

describe("the lock", () => {
  const path = () => join(cache, ".locks/x/ingle.lock");
  const left = (text: string) => {
    mkdirSync(dirname(path()), { recursive: true });
    writeFileSync(path(), text);
  };

  test("of a process that is gone is taken at once", async () => {
    await withLock(path(), {}, async () => {
      const own = JSON.parse(readFileSync(path(), "utf8"));
      left(JSON.stringify({ ...own, pid: 2 ** 22 + 1 })); // above the largest that Linux gives
    });
    expect(existsSync(path())).toBe(true);
    expect(await withLock(path(), {}, async () => "done")).toBe("done");
    expect(existsSync(path())).toBe(false);
  });

  test("of another machine is taken when it has given no sign for a minute, and waited for before", async () => {
    left('{"pid":1,"host":"elsewhere"}');
    const onWait = () => {
      throw new Error("waits");
    };
    await expect(withLock(path(), { onWait }, async () => "done")).rejects.toThrow("waits");
    utimesSync(path(), Date.now() / 1000 - 61, Date.now() / 1000 - 61);
    expect(await withLock(path(), { onWait }, async () => "done")).toBe("done");
  });

  test("is held by one at a time, and given back where the work fails", async () => {
    let inside = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => setTimeout(resolve, 20));
      inside--;
    };
    await Promise.all([1, 2, 3].map(() => withLock(path(), {}, work)));
    expect(most).toBe(1);
    await expect(withLock(path(), {}, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(existsSync(path())).toBe(false);
  });
});
