/** One after another. What failed before hinders nobody. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve()

  /** Runs when all that was asked for before has ended. */
  async take<T>(act: () => Promise<T>): Promise<T> {
    const mine = this.#last.then(act)
    this.#last = mine.catch(() => undefined) // its own caller is told
    return await mine
  }

  /** Resolves when nobody has a turn, or waits for one. */
  async settled(): Promise<void> {
    for (let last: unknown; last !== this.#last; ) {
      last = this.#last
      await this.#last
    }
  }
}

/** Turns by key; keys that nobody waits for take no memory. */
export class TurnsByKey {
  readonly #turns = new Map<string, { readonly turns: Turns; users: number }>()

  async take<T>(key: string, act: () => Promise<T>): Promise<T> {
    const entry = this.#turns.get(key) ?? { turns: new Turns(), users: 0 }
    this.#turns.set(key, entry)
    entry.users++
    try {
      return await entry.turns.take(act)
    } finally {
      if (--entry.users === 0) this.#turns.delete(key)
    }
  }
}

/** The promise's result, or the signal's reason if that comes first. What is waited for goes on. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}
