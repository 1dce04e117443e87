/** A lock that processes share through the file system: who creates the file holds it, and a holder that died loses it. */
import { randomUUID } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { writing } from "./nodeHubErrors.ts";

const BEAT = 5_000; // ms between signs of life of a holder
const DEAD = 60_000; // ms without one after which it counts as gone: on another machine its process cannot be looked up
const LOOK = 200; // ms between looks of those who wait

/** How to wait for a lock. */
export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called once before waiting; may throw instead. */
  readonly onWait?: () => void;
}

/** Runs `work`, told whether a holder died before, while no other process runs any under the same lock. Throws SOURCE_READ_ONLY and the like where it cannot be created. */
export async function withLock<T>(
  path: string,
  { signal, onWait }: LockOptions,
  work: (tookOver: boolean) => Promise<T>,
): Promise<T> {
  const own = JSON.stringify({ pid: process.pid, host: hostname(), id: randomUUID() });
  await writing(path, () => mkdir(dirname(path), { recursive: true }));
  let tookOver = false;
  for (let waited = false; !(await create(path, own)); waited = true) {
    signal?.throwIfAborted();
    const holder = await removeDead(path);
    tookOver = holder === "dead";
    if (holder !== "alive") continue;
    if (!waited) onWait?.();
    await sleep(LOOK, undefined, { signal });
  }
  const beat = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), BEAT); // a miss is made good by the next
  beat.unref();
  try {
    return await work(tookOver);
  } finally {
    clearInterval(beat);
    if ((await contents(path)) === own) await rm(path, { force: true });
  }
}

async function create(path: string, own: string): Promise<boolean> {
  return await writing(path, async () => {
    const handle = await open(path, "wx").catch((error: unknown) => {
      if (error instanceof Error && "code" in error && error.code === "EEXIST") return undefined;
      throw error;
    });
    if (handle === undefined) return false;
    try {
      await handle.writeFile(own).finally(() => handle.close());
      return true;
    } catch (error) {
      await rm(path, { force: true }); // nobody could tell whose it is, and would wait for a minute
      throw error;
    }
  });
}

/** Takes a lock away whose holder is gone. Two may try at once: each looks at what it took, and puts back what lives. */
async function removeDead(path: string): Promise<"alive" | "dead" | "gone"> {
  const seen = await contents(path);
  if (seen === undefined) return "gone";
  if (!(await isDead(path, seen))) return "alive";
  const taken = `${path}.${randomUUID()}`;
  try {
    await rename(path, taken);
  } catch {
    return "gone"; // another one was first
  }
  const right = (await contents(taken)) === seen;
  if (!right) await link(taken, path).catch(() => {}); // there is a newer one already
  await rm(taken, { force: true });
  return right ? "dead" : "gone";
}

async function isDead(path: string, text: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined && Date.now() - found.mtimeMs > DEAD) return true;
  const [, pid, host] = /^\{"pid":(\d+),"host":("[^"]*")/.exec(text) ?? [];
  return pid !== undefined && host === JSON.stringify(hostname()) && !isAlive(Number(pid));
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"; // another user's
  }
}

async function contents(path: string): Promise<string | undefined> {
  return await readFile(path, "utf8").catch(() => undefined);
}
