/** Lets what concerns one name happen one after the other. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>()

  async run<Result>(name: string, act: () => Promise<Result>): Promise<Result> {
    const before = this.#last.get(name)
    const turn = (async () => {
      await before?.catch(() => undefined) // told to whoever waited for it
      return await act()
    })()
    this.#last.set(name, turn)
    try {
      return await turn
    } finally {
      if (this.#last.get(name) === turn) this.#last.delete(name)
    }
  }
}
