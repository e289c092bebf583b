const FIRST_SLOTS = 256
/** Words of a slot. */
const SLOT = { row: 0, hash: 1 } as const
const SLOT_WORDS = 2
/** Others cannot know which keys collide here. */
const SEED = Math.floor(Math.random() * 2 ** 32)

/**
 * Finds numbers (of rows, never 0) by what they stand for: open addressing, 16 to 32 bytes each. The keys stay where they are, and the owner hashes and compares them; hashes are kept, so that
 * no key is looked at again when the table grows, and hardly one that is not the one that is looked for.
 */
export class HashIndex {
  #slots = newSlots(FIRST_SLOTS)
  /** Slots, of which there is a power of two, less one. */
  #mask = FIRST_SLOTS - 1
  #used = 0

  /** A row with this hash that `isIt` accepts; 0 when there is none. */
  find(hash: number, isIt: (row: number) => boolean): number {
    const slots = this.#slots
    const mask = this.#mask
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const row = slots[slot * SLOT_WORDS + SLOT.row]
      if (row === 0 || (slots[slot * SLOT_WORDS + SLOT.hash] === hash && isIt(row))) return row
    }
  }

  add(hash: number, row: number): void {
    if (this.#used * 2 > this.#mask) this.#grow()
    this.#used += 1
    this.#insert(hash, row)
  }

  /** Puts a row in the place of another with the same key, which is here under this hash. Under others it may be here too: an owner leaves behind what no key leads to any more. */
  replace(hash: number, old: number, row: number): void {
    const slots = this.#slots
    const mask = this.#mask
    let slot = hash & mask
    while (slots[slot * SLOT_WORDS + SLOT.row] !== old || slots[slot * SLOT_WORDS + SLOT.hash] !== hash)
      slot = (slot + 1) & mask
    slots[slot * SLOT_WORDS + SLOT.row] = row
  }

  /** Nothing is to be found any more: lets go of the memory. */
  clear(): void {
    this.#slots.buffer.transfer(0)
    this.#slots = newSlots(FIRST_SLOTS)
    this.#mask = FIRST_SLOTS - 1
    this.#used = 0
  }

  #insert(hash: number, row: number): void {
    const slots = this.#slots
    const mask = this.#mask
    let slot = hash & mask
    while (slots[slot * SLOT_WORDS + SLOT.row] !== 0) slot = (slot + 1) & mask
    slots[slot * SLOT_WORDS + SLOT.row] = row
    slots[slot * SLOT_WORDS + SLOT.hash] = hash
  }

  #grow(): void {
    const old = this.#slots
    this.#mask = this.#mask * 2 + 1
    this.#slots = newSlots(this.#mask + 1)
    for (let at = 0; at < old.length; at += SLOT_WORDS)
      if (old[at + SLOT.row] !== 0) this.#insert(old[at + SLOT.hash], old[at + SLOT.row])
    old.buffer.transfer(0) // free now, not with the next collection of garbage
  }
}

function newSlots(count: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(count * SLOT_WORDS)
}

/** Takes one more number into a hash; begin with 0. */
export function mix(hash: number, value: number): number {
  const mixed = Math.imul((hash ^ SEED) + value, 0x9e37_79b1)
  return (mixed ^ (mixed >>> 15)) >>> 0
}
