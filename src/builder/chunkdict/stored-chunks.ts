/** Numbers that say where a chunk lies. */
const FIELDS = 7
const FIRST_CAPACITY = 1024
const NOTHING = 0xffff_ffff

/** Records of seven numbers each, every one once, with a number of its own. 56 bytes a record and 8 to find it, where objects and strings would take 500. */
export class StoredChunks {
  #fields = new Float64Array(FIRST_CAPACITY * FIELDS)
  /** Numbers by hash, open addressing; twice as many slots as records. */
  #slots = new Uint32Array(FIRST_CAPACITY * 2).fill(NOTHING)
  #count = 0

  /** The number of an equal record, or of this one from now on. */
  numberOf(record: readonly number[]): number {
    if ((this.#count + 1) * FIELDS > this.#fields.length) this.#grow()
    const slot = this.#slotOf(record)
    const known = this.#slots[slot] ?? NOTHING
    if (known !== NOTHING) return known
    this.#fields.set(record, this.#count * FIELDS)
    this.#slots[slot] = this.#count
    return this.#count++
  }

  field(number: number, field: number): number {
    return this.#fields[number * FIELDS + field] ?? 0
  }

  #slotOf(record: readonly number[]): number {
    const mask = this.#slots.length - 1
    for (let slot = hash(record) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#slots[slot] ?? NOTHING
      if (number === NOTHING || record.every((value, field) => this.field(number, field) === value)) return slot
    }
  }

  #grow(): void {
    const fields = new Float64Array(this.#fields.length * 2)
    fields.set(this.#fields)
    this.#fields = fields
    this.#slots = new Uint32Array(this.#slots.length * 2).fill(NOTHING)
    for (let number = 0; number < this.#count; number += 1)
      this.#slots[this.#slotOf([...fields.subarray(number * FIELDS, (number + 1) * FIELDS)])] = number
  }
}

function hash(record: readonly number[]): number {
  let mixed = 0
  for (const value of record) {
    mixed = Math.imul(mixed ^ (value % 2 ** 32), 0x9e37_79b1)
    mixed = Math.imul(mixed ^ (mixed >>> 15) ^ Math.floor(value / 2 ** 32), 0x85eb_ca6b)
  }
  return (mixed ^ (mixed >>> 13)) >>> 0
}
