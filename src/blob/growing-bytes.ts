/** Bytes that grow by doubling. */
export class GrowingBytes {
  #bytes = Buffer.alloc(4096)
  #length = 0

  /** The place for `size` more bytes, zeroed. */
  extend(size: number): Buffer {
    const end = this.#length + size
    if (end > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(end, this.#bytes.length * 2))
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    const place = this.#bytes.subarray(this.#length, end)
    this.#length = end
    return place
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }
}
