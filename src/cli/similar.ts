/** The known word that is likest to a mistyped one, if any is like enough: the original's parser asks for a Jaro similarity above 0.7. */
export function similar(given: string, known: readonly string[]): string | undefined {
  let best: { readonly word: string; readonly likeness: number } | undefined
  for (const word of known) {
    const likeness = jaro(given.slice(0, 64), word)
    if (likeness > 0.7 && likeness >= (best?.likeness ?? 0)) best = { word, likeness }
  }
  return best?.word
}

/** Jaro similarity, 0 to 1: letters in common within a window, less half of those that are out of order. */
export function jaro(a: string, b: string): number {
  if (a === b) return 1
  const window = Math.max(0, Math.floor(Math.max(a.length, b.length) / 2) - 1)
  const taken = new Set<number>()
  const inA: string[] = []
  for (let i = 0; i < a.length; i += 1) {
    for (let j = Math.max(0, i - window); j <= Math.min(b.length - 1, i + window); j += 1) {
      if (taken.has(j) || a[i] !== b[j]) continue
      taken.add(j)
      inA.push(b[j] ?? '')
      break
    }
  }
  if (taken.size === 0) return 0
  const inB = [...taken].sort((x, y) => x - y).map((j) => b[j] ?? '')
  const swapped = inA.filter((letter, i) => letter !== inB[i]).length / 2
  return (taken.size / a.length + taken.size / b.length + (taken.size - swapped) / taken.size) / 3
}
