/** Verified chunks that could not be kept on disk: the most recently used ones, within a budget. */
export class MemoryStore {
  readonly #budgetBytes: number
  readonly #chunks = new Map<string, Uint8Array>()
  #bytes = 0

  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes
  }

  /** The chunk's bytes, for reading only. */
  get(blob: number, chunk: number): Uint8Array | undefined {
    const key = `${blob}:${chunk}`
    const found = this.#chunks.get(key)
    if (found === undefined) return undefined
    this.#chunks.delete(key)
    this.#chunks.set(key, found)
    return found
  }

  has(blob: number, chunk: number): boolean {
    return this.#chunks.has(`${blob}:${chunk}`)
  }

  /** Keeps a copy. A chunk larger than the budget is not kept. */
  put(blob: number, chunk: number, bytes: Uint8Array): void {
    const key = `${blob}:${chunk}`
    if (bytes.length > this.#budgetBytes || this.#chunks.has(key)) return
    this.#bytes += bytes.length
    this.#chunks.set(key, Uint8Array.from(bytes))
    for (const [oldest, { length }] of this.#chunks) {
      if (this.#bytes <= this.#budgetBytes) break
      this.#chunks.delete(oldest)
      this.#bytes -= length
    }
  }

  clear(): void {
    this.#chunks.clear()
    this.#bytes = 0
  }
}
