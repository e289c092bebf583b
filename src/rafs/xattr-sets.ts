import type { ByteArena } from './byte-arena.ts'
import { HashIndex, mix } from './hash-index.ts'
import type { RafsXattr } from './tree.ts'

/** `u32 bytes of all that follows`, then for each `u16 length of the name, u32 length of the value, name, value`. */
const TOTAL_BYTES = 4
const HEAD_BYTES = 6

/** Lists of xattrs; most files of an image that have any have the same ones, so each list is kept once. Address 0 is the empty list. */
export class XattrSets {
  readonly #bytes: ByteArena
  readonly #known = new HashIndex()

  constructor(bytes: ByteArena) {
    this.#bytes = bytes
  }

  /** In the order of the list. */
  add(xattrs: readonly RafsXattr[]): number {
    if (xattrs.length === 0) return 0
    const encoded = encode(xattrs)
    const hash = hashBytes(encoded)
    const known = this.#known.find(hash, (address) => Buffer.compare(this.#encoded(address), encoded) === 0)
    if (known !== 0) return known
    const address = this.#bytes.add(encoded)
    this.#known.add(hash, address)
    return address
  }

  /** Views. */
  get(address: number): RafsXattr[] {
    const found: RafsXattr[] = []
    if (address === 0) return found
    const bytes = this.#encoded(address)
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    for (let at = TOTAL_BYTES; at < bytes.length; ) {
      const nameEnd = at + HEAD_BYTES + view.getUint16(at, true)
      const end = nameEnd + view.getUint32(at + 2, true)
      found.push({ name: bytes.subarray(at + HEAD_BYTES, nameEnd), value: bytes.subarray(nameEnd, end) })
      at = end
    }
    return found
  }

  #encoded(address: number): Uint8Array {
    const head = this.#bytes.view(address, TOTAL_BYTES)
    const total = new DataView(head.buffer, head.byteOffset, TOTAL_BYTES).getUint32(0, true)
    return this.#bytes.view(address, TOTAL_BYTES + total)
  }
}

function encode(xattrs: readonly RafsXattr[]): Uint8Array {
  const total = xattrs.reduce((sum, { name, value }) => sum + HEAD_BYTES + name.length + value.length, 0)
  const bytes = new Uint8Array(TOTAL_BYTES + total)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, total, true)
  let at = TOTAL_BYTES
  for (const { name, value } of xattrs) {
    view.setUint16(at, name.length, true)
    view.setUint32(at + 2, value.length, true)
    bytes.set(name, at + HEAD_BYTES)
    bytes.set(value, at + HEAD_BYTES + name.length)
    at += HEAD_BYTES + name.length + value.length
  }
  return bytes
}

function hashBytes(bytes: Uint8Array): number {
  let hash = 0
  for (const byte of bytes) hash = mix(hash, byte)
  return hash
}
