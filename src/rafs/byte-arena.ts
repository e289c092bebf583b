import { RafsError } from './errors.ts'

const SLAB_BITS = 16
const SLAB_BYTES = 1 << SLAB_BITS
const SLAB_MASK = SLAB_BYTES - 1
/** Addresses have 32 bits. */
const MAX_SLABS = 2 ** 32 / SLAB_BYTES

/** Short runs of bytes, each kept whole at an address: names, links, xattrs. A buffer of its own would cost each of them a hundred bytes more. Address 0 is never given. */
export class ByteArena {
  readonly #slabs: Uint8Array[] = []
  #end = SLAB_BYTES
  #used = 1

  /** Keeps a run of `length` bytes, which are to be written into {@link view}. Throws 'TOO_LARGE' beyond 4 GiB in all. */
  reserve(length: number): number {
    if (length > this.#end - this.#used || this.#slabs.length === 0) this.#grow(length)
    const address = this.#used
    this.#used += length
    return address
  }

  add(bytes: Uint8Array): number {
    const address = this.reserve(bytes.length)
    this.view(address, bytes.length).set(bytes)
    return address
  }

  /** The bytes at an address, up to the end of what was reserved there. */
  view(address: number, length: number): Uint8Array {
    const at = address & SLAB_MASK
    return this.slab(address).subarray(at, at + length)
  }

  /** For loops over bytes: what `address` lies in, at {@link ByteArena.position}. */
  slab(address: number): Uint8Array {
    return this.#slabs[address >>> SLAB_BITS]
  }

  static position(address: number): number {
    return address & SLAB_MASK
  }

  /** A run longer than a slab starts one of its own, which takes the places of several. */
  #grow(length: number): void {
    const slabs = Math.max(1, Math.ceil((length + 1) / SLAB_BYTES))
    const first = this.#slabs.length
    if (first + slabs > MAX_SLABS)
      throw new RafsError('TOO_LARGE', 'names, links and xattrs take more than 4 GiB; build fewer files at a time')
    const slab = new Uint8Array(slabs * SLAB_BYTES)
    for (let index = 0; index < slabs; index++) this.#slabs.push(slab.subarray(index * SLAB_BYTES))
    this.#used = first * SLAB_BYTES + (first === 0 ? 1 : 0)
    this.#end = (first + slabs) * SLAB_BYTES
  }
}
