/**
 * Waiting for the GPU in Node, without keeping a core busy.
 *
 * While one of its promises is open, Dawn's binding asks for news in every turn of the event loop, and makes the loop turn without a pause. A software adapter
 * computes on the same cores: on two of them it then loses a third of its speed. So while something is waited for each turn ends with a short sleep.
 */

/** A sleep is at most this share of the time waited so far: what arrives meanwhile is noticed that much later. */
const SHARE = 1 / 16;
const LONGEST_MS = 1;
const SHORTEST_MS = 0.05; // about what a timer of Linux is late by
/** Sleeps there end with the system's clock tick, up to 16 ms later. */
const sleepsLong = process.platform === "win32";

const bell = new Int32Array(new SharedArrayBuffer(4)); // nobody rings it
let open = 0;
let since = 0;
let turning = false;

/** Settles as `arrival` does; until then the event loop sleeps for up to a millisecond a turn. */
export async function waitFor<T>(arrival: Promise<T>): Promise<T> {
  open++;
  since = performance.now();
  if (!turning && !sleepsLong) turn();
  try {
    return await arrival;
  } finally {
    open--;
    since = performance.now();
  }
}

function turn(): void {
  turning = open > 0;
  if (!turning) return;
  const milliseconds = Math.min((performance.now() - since) * SHARE, LONGEST_MS);
  if (milliseconds >= SHORTEST_MS) Atomics.wait(bell, 0, 0, milliseconds);
  setImmediate(turn);
}
