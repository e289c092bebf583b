const FIRST_BYTES = 4096

/** Bytes that grow by doubling. What is left behind then is free at once: views of them end with the next that are added. */
export class GrowingBytes {
  #bytes: Buffer<ArrayBuffer> = Buffer.alloc(FIRST_BYTES)
  #view = viewOf(this.#bytes)
  #length = 0

  /** Makes `size` more bytes, zeros; gives where they start in {@link view}. */
  extend(size: number): number {
    const start = this.#length
    const end = start + size
    if (end > this.#bytes.length) {
      this.#bytes = Buffer.from(this.#bytes.buffer.transfer(Math.max(end, this.#bytes.length * 2)))
      this.#view = viewOf(this.#bytes)
    }
    this.#length = end
    return start
  }

  append(bytes: Uint8Array): void {
    const start = this.extend(bytes.length)
    this.#bytes.set(bytes, start)
  }

  /** Lets go of all of them: nothing may have a view any more. */
  clear(): void {
    this.#bytes.buffer.transfer(0)
    this.#bytes = Buffer.alloc(FIRST_BYTES)
    this.#view = viewOf(this.#bytes)
    this.#length = 0
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
