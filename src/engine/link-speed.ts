/** Bodies that come for less than that tell nothing of the link: their bytes lay in a buffer of this machine. */
const SHORTEST_MS = 2
/** What is new counts for so much. */
const SHARE_OF_NEW = 0.25

/** What a link carries, learned from the answers that come over it, one or several at once. Times are milliseconds of one clock. */
export class LinkSpeed {
  #bytesPerMs = 0
  #roundTripMs = 0
  #bodies = 0
  #from = 0
  #bytes = 0

  /** 0 = not known. */
  get bytesPerMs(): number {
    return this.#bytesPerMs
  }

  /** From a request to the first byte of its answer, on a link that carries nothing else; 0 = not known. */
  get roundTripMs(): number {
    return this.#roundTripMs
  }

  /** The first bytes of an answer are there. `waitedMs` after its request, where nothing else was on the link meanwhile. */
  begins(now: number, bytes: number, waitedMs: number | undefined): void {
    if (waitedMs !== undefined) this.#roundTripMs = smoothed(this.#roundTripMs, waitedMs)
    // When the first bytes of a lone answer left is not known.
    if (this.#bodies++ === 0) this.#restart(now)
    else this.#bytes += bytes
  }

  came(bytes: number): void {
    this.#bytes += bytes
  }

  /** An answer has ended, which had so many bytes and took so long with its request; 0 bytes = it failed. */
  ends(now: number, bytes: number, tookMs: number): void {
    this.#bodies--
    const ms = now - this.#from
    if (bytes === 0) this.#restart(now)
    else if (ms >= SHORTEST_MS) {
      this.#bytesPerMs = smoothed(this.#bytesPerMs, this.#bytes / ms)
      this.#restart(now)
    } else if (this.#bodies === 0 && tookMs > 0)
      // It came at once: the link is at least as fast as all of the request was.
      this.#bytesPerMs = Math.max(this.#bytesPerMs, bytes / tookMs)
  }

  #restart(now: number): void {
    this.#from = now
    this.#bytes = 0
  }
}

function smoothed(before: number, value: number): number {
  return before === 0 ? value : before * (1 - SHARE_OF_NEW) + value * SHARE_OF_NEW
}
