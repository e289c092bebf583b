/** Daemons of which so many at a time are looked for, started, asked, or ended. */
const AT_ONCE = 4

/** Some at a time, in order. Rejects with the first failure. */
export async function inParallel<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items]
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (let item = rest.shift(); item !== undefined; item = rest.shift()) await act(item)
    }),
  )
}
