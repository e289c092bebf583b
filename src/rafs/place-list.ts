const FIRST_LENGTH = 64

/** A list of numbers of 32 bits that grows: 4 to 8 bytes each, and what it leaves behind when it grows is free at once, where arrays leave it to the next collection of garbage. */
export class PlaceList {
  #words = new Uint32Array(FIRST_LENGTH)
  #length = 0

  get length(): number {
    return this.#length
  }

  push(place: number): void {
    if (this.#length === this.#words.length)
      this.#words = new Uint32Array(this.#words.buffer.transfer(this.#words.byteLength * 2))
    this.#words[this.#length++] = place
  }

  /** A view, until the next one is added. */
  get all(): Uint32Array {
    return this.#words.subarray(0, this.#length)
  }

  /** Empties the list, and lets go of its memory. */
  clear(): void {
    this.#words.buffer.transfer(0)
    this.#words = new Uint32Array(FIRST_LENGTH)
    this.#length = 0
  }
}
