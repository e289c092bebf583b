import { sipHash24 } from './sip-hash.ts'

/** Places of a peer on the ring. All clients of a cluster must agree on them, and on every hash below: what two ask for must meet at one peer. */
const PLACES = 512
/** Ends a text in what is hashed. */
const END = Uint8Array.of(0xff)
const INDEX_BYTES = 8

/** Which of some names a key belongs to: the one whose place is at the key's hash or, going up and round, next to it. */
export class HashRing {
  readonly #names: readonly string[]
  readonly #low: Uint32Array
  readonly #high: Uint32Array
  /** The places in their order; place `n` is one of name `n / PLACES`. */
  readonly #order: Uint32Array

  constructor(names: readonly string[]) {
    this.#names = names
    const size = names.length * PLACES
    const [low, high] = [new Uint32Array(size), new Uint32Array(size)]
    names.forEach((name, nth) => {
      // A place is hashed as its number, 8 bytes little-endian, and the name.
      const bytes = Buffer.concat([Buffer.alloc(INDEX_BYTES), Buffer.from(name), END])
      for (let place = 0; place < PLACES; place += 1) {
        bytes.writeUInt32LE(place, 0)
        const at = nth * PLACES + place
        ;[low[at], high[at]] = sipHash24(bytes)
      }
    })
    this.#low = low
    this.#high = high
    this.#order = new Uint32Array(size).map((_, index) => index)
    this.#order.sort((a, b) => this.#compare(a, high[b] ?? 0, low[b] ?? 0) || a - b)
  }

  get names(): readonly string[] {
    return this.#names
  }

  /** Undefined when there are no names. */
  find(key: string): string | undefined {
    const [low, high] = sipHash24(Buffer.concat([Buffer.from(key), END]))
    let [from, to] = [0, this.#order.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      if (this.#compare(this.#order[middle] ?? 0, high, low) < 0) from = middle + 1
      else to = middle
    }
    const place = this.#order[from === this.#order.length ? 0 : from]
    return place === undefined ? undefined : this.#names[Math.floor(place / PLACES)]
  }

  /** A place against a hash. */
  #compare(place: number, high: number, low: number): number {
    return (this.#high[place] ?? 0) - high || (this.#low[place] ?? 0) - low
  }
}
