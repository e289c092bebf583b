/** Turns by key: what has the same key runs one after another. What failed before hinders nobody; keys that nobody waits for take no memory. */
export class TurnsByKey {
  readonly #last = new Map<string, Promise<unknown>>()

  /** Runs when all that was asked for before under this key has ended. */
  async take<T>(key: string, act: () => Promise<T>): Promise<T> {
    const mine = (this.#last.get(key) ?? Promise.resolve()).then(act)
    const settled = mine.catch(() => undefined) // its own caller is told
    this.#last.set(key, settled)
    try {
      return await mine
    } finally {
      if (this.#last.get(key) === settled) this.#last.delete(key)
    }
  }
}
