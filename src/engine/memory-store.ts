/** What a kept chunk takes besides its bytes, about, with the room that the heap keeps for garbage: an image may have millions of chunks of a few bytes. */
const OVERHEAD_BYTES = 512
/** More blobs than an image has, each with as many chunks as 32 bits number. */
const BLOB_STEP = 2 ** 32

/** A kept chunk, in a ring in which each follows the one that was used before it. */
class Kept {
  readonly key: number
  readonly bytes: Uint8Array
  older: Kept = this
  newer: Kept = this

  constructor(key: number, bytes: Uint8Array) {
    this.key = key
    this.bytes = bytes
  }

  leave(): void {
    this.older.newer = this.newer
    this.newer.older = this.older
  }

  enterBefore(next: Kept): void {
    this.newer = next
    this.older = next.older
    next.older.newer = this
    next.older = this
  }
}

/**
 * Verified chunks that could not be kept on disk: the most recently used ones, within a budget. The ring has their order, and not the map itself: to find a map's first entry all
 * those are passed over that were taken out before it, which for many small chunks is most of the time of a read.
 */
export class MemoryStore {
  readonly #budgetBytes: number
  readonly #chunks = new Map<number, Kept>()
  /** Where the ring begins and ends: the oldest chunk follows it, and it follows the newest. */
  readonly #ends = new Kept(-1, new Uint8Array(0))
  #bytes = 0

  /** `budgetBytes` counts a chunk with what it takes besides its bytes. */
  constructor(budgetBytes: number) {
    this.#budgetBytes = budgetBytes
  }

  /** The chunk's bytes, for reading only. */
  get(blob: number, chunk: number): Uint8Array | undefined {
    const found = this.#chunks.get(keyOf(blob, chunk))
    if (found === undefined) return undefined
    found.leave()
    found.enterBefore(this.#ends)
    return found.bytes
  }

  has(blob: number, chunk: number): boolean {
    return this.#chunks.has(keyOf(blob, chunk))
  }

  /** Keeps a copy. A chunk larger than the budget is not kept. */
  put(blob: number, chunk: number, bytes: Uint8Array): void {
    const key = keyOf(blob, chunk)
    if (costOf(bytes) > this.#budgetBytes || this.#chunks.has(key)) return
    this.#bytes += costOf(bytes)
    while (this.#bytes > this.#budgetBytes) this.#drop(this.#ends.newer)
    const kept = new Kept(key, Uint8Array.from(bytes))
    kept.enterBefore(this.#ends)
    this.#chunks.set(key, kept)
  }

  #drop(oldest: Kept): void {
    oldest.leave()
    this.#chunks.delete(oldest.key)
    this.#bytes -= costOf(oldest.bytes)
  }

  clear(): void {
    this.#chunks.clear()
    this.#ends.older = this.#ends
    this.#ends.newer = this.#ends
    this.#bytes = 0
  }
}

function keyOf(blob: number, chunk: number): number {
  return blob * BLOB_STEP + chunk
}

function costOf({ length }: Uint8Array): number {
  return length + OVERHEAD_BYTES
}
