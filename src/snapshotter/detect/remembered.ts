/** Answers for a time each, as many as fit: what was asked for longest ago goes first. */
export class Remembered<T> {
  readonly #most: number
  readonly #entries = new Map<string, { readonly value: T; readonly untilMs: number; readonly sinceMs: number }>()

  constructor(most: number) {
    this.#most = most
  }

  /** Undefined when it is not known, or no longer. */
  get(key: string): { readonly value: T } | undefined {
    const entry = this.#entries.get(key)
    if (entry === undefined) return undefined
    this.#entries.delete(key)
    const now = Date.now()
    // A clock that was set back must not make answers last.
    if (now >= entry.untilMs || now < entry.sinceMs) return undefined
    this.#entries.set(key, entry)
    return entry
  }

  set(key: string, value: T, lifeMs: number): void {
    this.#entries.delete(key)
    this.#entries.set(key, { value, sinceMs: Date.now(), untilMs: Date.now() + lifeMs })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > this.#most && oldest !== undefined) this.#entries.delete(oldest)
  }
}
