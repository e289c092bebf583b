/** Bytes that grow by doubling. */
export class GrowingBytes {
  #bytes = Buffer.alloc(4096)
  #view = viewOf(this.#bytes)
  #length = 0

  /** Makes `size` more bytes, zeros; gives where they start in {@link view}. */
  extend(size: number): number {
    const start = this.#length
    const end = start + size
    if (end > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(end, this.#bytes.length * 2))
      larger.set(this.#bytes)
      this.#bytes = larger
      this.#view = viewOf(larger)
    }
    this.#length = end
    return start
  }

  append(bytes: Uint8Array): void {
    const start = this.extend(bytes.length)
    this.#bytes.set(bytes, start)
  }

  /** Of all of them; another one after the next that are added. */
  get view(): DataView {
    return this.#view
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }
}

function viewOf({ buffer, byteOffset, length }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, length)
}
