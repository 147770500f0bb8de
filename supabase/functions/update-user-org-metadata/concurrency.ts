/** Runs an action for each item, at most `limit` at a time. */
export async function forEachConcurrently<T>(
  items: T[],
  limit: number,
  action: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  const work = async () => {
    for (const item of queue) await action(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, work));
}

/** A promise that is awaited later. If it fails before that, the process does not take it for a failure nobody handles. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}
