/** Runs work on many items, some at a time, and hands the results out in the items' order. */

/** Results in order, at most `atOnce` in the works. The first failure is thrown in its turn. */
export async function* inOrder<T, R>(
  items: readonly T[],
  atOnce: number,
  work: (item: T, index: number) => Promise<R>,
): AsyncGenerator<R, void, undefined> {
  const started: Promise<PromiseSettledResult<R>>[] = [];
  for (let index = 0; index < items.length; index++) {
    for (let next = started.length; next < items.length && next < index + atOnce; next++) {
      const item = items[next] as T;
      started.push(Promise.allSettled([work(item, next)]).then(([result]) => result));
    }
    const result = await started[index];
    if (result === undefined) return;
    if (result.status === "rejected") throw result.reason;
    yield result.value;
  }
}
