/** The known key that a mistyped one most likely means: the same name in another table, or one that few letters tell apart. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  const last = lastOf(key)
  const sameName = known.filter((candidate) => lastOf(candidate) === last)
  if (sameName.length === 1) return sameName[0]
  let best: string | undefined
  let least = Math.max(2, Math.floor(last.length / 3)) + 1
  for (const candidate of known) {
    const isSibling = candidate.slice(0, -lastOf(candidate).length) === key.slice(0, -last.length)
    const changes = changesBetween(last.slice(0, 64), lastOf(candidate)) + (isSibling ? 0 : 1)
    if (changes < least) {
      least = changes
      best = candidate
    }
  }
  return best
}

function lastOf(key: string): string {
  return key.slice(key.lastIndexOf('.') + 1)
}

/** Letters to insert, drop or replace to make one word of the other. */
function changesBetween(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const next = [i]
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}
