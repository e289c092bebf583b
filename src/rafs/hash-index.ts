const FIRST_SLOTS = 256
/** Others cannot know which keys collide here. */
const SEED = Math.floor(Math.random() * 2 ** 32)

/** Finds numbers (of rows, never 0) by what they stand for: open addressing, 4 to 8 bytes each. The keys stay where they are; the owner hashes and compares. */
export class HashIndex {
  readonly #hashOf: (row: number) => number
  #slots = new Uint32Array(FIRST_SLOTS)
  #used = 0

  constructor(hashOf: (row: number) => number) {
    this.#hashOf = hashOf
  }

  /** A row with this hash that `isIt` accepts; 0 when there is none. */
  find(hash: number, isIt: (row: number) => boolean): number {
    const mask = this.#slots.length - 1
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const row = this.#slots[slot]
      if (row === 0 || isIt(row)) return row
    }
  }

  add(hash: number, row: number): void {
    if (this.#used * 2 >= this.#slots.length) this.#grow()
    this.#used += 1
    this.#insert(hash, row)
  }

  /** Puts a row in the place of another with the same key. */
  replace(hash: number, old: number, row: number): void {
    const mask = this.#slots.length - 1
    let slot = hash & mask
    while (this.#slots[slot] !== old) slot = (slot + 1) & mask
    this.#slots[slot] = row
  }

  /** Nothing is to be found any more: lets go of the memory. */
  clear(): void {
    this.#slots = new Uint32Array(FIRST_SLOTS)
    this.#used = 0
  }

  #insert(hash: number, row: number): void {
    const mask = this.#slots.length - 1
    let slot = hash & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    this.#slots[slot] = row
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Uint32Array(old.length * 2)
    for (const row of old) if (row !== 0) this.#insert(this.#hashOf(row), row)
  }
}

/** Takes one more number into a hash; begin with 0. */
export function mix(hash: number, value: number): number {
  const mixed = Math.imul((hash ^ SEED) + value, 0x9e37_79b1)
  return (mixed ^ (mixed >>> 15)) >>> 0
}
