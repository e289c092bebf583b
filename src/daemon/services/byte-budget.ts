/** Memory that is shared by work under way; who does not get some waits, first come first served. */
export class ByteBudget {
  readonly #total: number
  readonly #waiting: Array<{ readonly bytes: number; readonly go: () => void }> = []
  #used = 0

  constructor(total: number) {
    this.#total = total
  }

  /** More than there is in all is given alone. Give it back once. */
  async take(bytes: number): Promise<() => void> {
    if (this.#waiting.length > 0 || !this.#fits(bytes)) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting.push({ bytes, go: resolve })
      await promise
    } else this.#used += bytes
    return () => this.#give(bytes)
  }

  #fits(bytes: number): boolean {
    return this.#used === 0 || this.#used + bytes <= this.#total
  }

  #give(bytes: number): void {
    this.#used -= bytes
    for (let first = this.#waiting[0]; first !== undefined && this.#fits(first.bytes); first = this.#waiting[0]) {
      this.#waiting.shift()
      this.#used += first.bytes
      first.go()
    }
  }
}
