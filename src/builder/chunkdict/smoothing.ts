import type { ChunkFacts } from './chunk-facts.ts'

/** How much the newest observation counts. */
const ALPHA = 0.5

/**
 * Chunks of one image that its later versions are likely to have: each row is scored by whether the version before had its digest, smoothed over the rows; those above the
 * threshold are taken, each digest once.
 */
export function smoothed(facts: ChunkFacts, rows: readonly number[], threshold: number): number[] {
  const [first] = rows
  if (first === undefined) return []
  const found = new Map<number, number>()
  const versions = new PreviousVersion(facts, rows)
  const oldest = facts.releaseOf(first)
  let score = 0
  for (const [at, row] of rows.entries()) {
    if (facts.releaseOf(row) === oldest) score = 0
    else score = ALPHA * (versions.had(at, row) ? 1 : 0) + (1 - ALPHA) * score
    const digest = facts.digestOf(row)
    if (score > threshold && !found.has(digest)) found.set(digest, row)
  }
  return [...found.values()]
}

/** Digests of the version before the one that the pass over the rows is in. */
class PreviousVersion {
  readonly #facts: ChunkFacts
  readonly #rows: readonly number[]
  #start = 0
  #digests = new Set<number>()

  constructor(facts: ChunkFacts, rows: readonly number[]) {
    this.#facts = facts
    this.#rows = rows
  }

  had(at: number, row: number): boolean {
    const before = this.#rows[at - 1] ?? row
    if (this.#facts.releaseOf(before) !== this.#facts.releaseOf(row)) {
      this.#digests = new Set(this.#rows.slice(this.#start, at).map((past) => this.#facts.digestOf(past)))
      this.#start = at
    }
    return this.#digests.has(this.#facts.digestOf(row))
  }
}
