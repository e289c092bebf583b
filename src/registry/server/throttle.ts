import { setTimeout as delay } from 'node:timers/promises'

/** One link with a bandwidth that all bodies share. */
export class Throttle {
  bytesPerSecond: number | undefined
  #freeAt = 0

  constructor(bytesPerSecond: number | undefined) {
    this.bytesPerSecond = bytesPerSecond
  }

  /** Resolves when these bytes have gone over the link. */
  async pass(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.bytesPerSecond === undefined) return
    const now = performance.now()
    this.#freeAt = Math.max(this.#freeAt, now) + (bytes / this.bytesPerSecond) * 1000
    const wait = this.#freeAt - now
    if (wait >= 1) await delay(wait, undefined, { signal })
  }
}
