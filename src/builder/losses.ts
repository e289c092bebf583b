/** Told of what a source has and an image cannot hold, in words; it is left out. */
export type OnLost = (what: string) => void

/** Gathers what was left out of an image: one warning, however often it happened. */
export class Losses {
  #count = 0
  #first = ''

  readonly add: OnLost = (what) => {
    if (this.#count === 0) this.#first = what
    this.#count += 1
  }

  /** Empty when nothing was lost. */
  get warnings(): readonly string[] {
    if (this.#count === 0) return []
    const others = this.#count === 1 ? '' : `, and ${this.#count - 1} more of such`
    return [`the image cannot hold all of its source; left out: ${this.#first}${others}`]
  }
}
