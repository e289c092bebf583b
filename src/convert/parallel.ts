/**
 * Runs `work` for all items, at most `limit` at once, and gives the results in the items' order. The first failure aborts the signal that the others
 * got; they have all ended when it is thrown.
 */
export async function inParallel<Item, Result>(
  items: readonly Item[],
  limit: number,
  signal: AbortSignal,
  work: (item: Item, signal: AbortSignal, index: number) => Promise<Result>,
): Promise<Result[]> {
  const stop = new AbortController()
  const joined = AbortSignal.any([signal, stop.signal])
  const results: Result[] = []
  const pending = items.entries()
  const failures: unknown[] = []
  const worker = async (): Promise<void> => {
    for (const [index, item] of pending) {
      if (joined.aborted) return
      try {
        results[index] = await work(item, joined, index)
      } catch (error) {
        failures.push(error)
        stop.abort(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker))
  signal.throwIfAborted()
  if (failures.length > 0) throw failures[0]
  return results
}
