import { hash } from 'node:crypto'

const PAGE_BYTES = 4096
const DIGEST_BYTES = 32
const PER_PAGE = PAGE_BYTES / DIGEST_BYTES

/**
 * The hash tree of dm-verity over a disk (format 1, SHA-256, no salt, hash blocks of 4096 bytes), as the original builds it: entries of a page that stand for no block hold the digest of
 * 4096 zeros. Takes the disk front to back; keeps 1/128 of what is not zero.
 */
export class VerityTree {
  readonly #blockSize: number
  readonly #filler: Buffer
  readonly #zeroDigest: Uint8Array
  /** The page of 128 blocks of zeros, of which a sparse disk has many. */
  readonly #zeroPage: Buffer
  readonly #leaves: Buffer[] = []
  readonly #block: Buffer
  #blockFilled = 0
  #page: Buffer
  #entries = 0
  #blocks = 0
  #first: Uint8Array | undefined

  constructor(blockSize: number) {
    this.#blockSize = blockSize
    this.#block = Buffer.alloc(blockSize)
    this.#filler = pageOf(digestOf(new Uint8Array(PAGE_BYTES)))
    this.#zeroDigest = digestOf(new Uint8Array(blockSize))
    this.#zeroPage = pageOf(this.#zeroDigest)
    this.#page = Buffer.from(this.#filler)
  }

  update(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#blockFilled === 0 && bytes.length - at >= this.#blockSize) {
        this.#add(digestOf(bytes.subarray(at, at + this.#blockSize)))
        at += this.#blockSize
        continue
      }
      const taken = Math.min(this.#blockSize - this.#blockFilled, bytes.length - at)
      this.#block.set(bytes.subarray(at, at + taken), this.#blockFilled)
      at += taken
      this.#blockFilled += taken
      if (this.#blockFilled < this.#blockSize) return
      this.#blockFilled = 0
      this.#add(digestOf(this.#block))
    }
  }

  zeros(length: number): void {
    let left = length
    if (this.#blockFilled > 0) {
      const taken = Math.min(left, this.#blockSize - this.#blockFilled)
      this.update(new Uint8Array(taken))
      left -= taken
    }
    for (; left >= this.#blockSize; left -= this.#blockSize) {
      while (this.#entries === 0 && this.#blocks > 0 && left >= PER_PAGE * this.#blockSize) {
        this.#leaves.push(this.#zeroPage)
        this.#blocks += PER_PAGE
        left -= PER_PAGE * this.#blockSize
      }
      if (left < this.#blockSize) break
      this.#add(this.#zeroDigest)
    }
    if (left > 0) this.update(new Uint8Array(left))
  }

  /** After the last whole block: the root hash, and the pages in their order on the disk (top level first). */
  finish(): { readonly rootHash: string; readonly pages: readonly Uint8Array[] } {
    if (this.#entries > 0) this.#endPage()
    if (this.#blocks <= 1 && this.#first !== undefined)
      return { rootHash: Buffer.from(this.#first).toString('hex'), pages: [] }
    const levels = [this.#leaves]
    for (let level = this.#leaves; level.length > 1; levels.unshift(level)) level = this.#parents(level)
    return { rootHash: digestOf(levels[0]?.[0] ?? this.#filler).toString('hex'), pages: levels.flat() }
  }

  #add(digest: Uint8Array): void {
    this.#first ??= digest
    this.#blocks += 1
    this.#page.set(digest, this.#entries * DIGEST_BYTES)
    this.#entries += 1
    if (this.#entries === PER_PAGE) this.#endPage()
  }

  #endPage(): void {
    this.#leaves.push(this.#page)
    this.#page = Buffer.from(this.#filler)
    this.#entries = 0
  }

  #parents(level: readonly Buffer[]): Buffer[] {
    const zeroPageDigest = digestOf(this.#zeroPage)
    const parents: Buffer[] = []
    for (let at = 0; at < level.length; at += PER_PAGE) {
      const parent = Buffer.from(this.#filler)
      for (const [index, page] of level.slice(at, at + PER_PAGE).entries())
        parent.set(page === this.#zeroPage ? zeroPageDigest : digestOf(page), index * DIGEST_BYTES)
      parents.push(parent)
    }
    return parents
  }
}

function digestOf(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer')
}

function pageOf(digest: Uint8Array): Buffer {
  const page = Buffer.alloc(PAGE_BYTES)
  for (let at = 0; at < PAGE_BYTES; at += DIGEST_BYTES) page.set(digest, at)
  return page
}
