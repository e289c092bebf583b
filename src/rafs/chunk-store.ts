import { RafsError } from './errors.ts'
import { HashIndex, mix } from './hash-index.ts'
import { Rows } from './rows.ts'
import type { RafsChunk } from './tree.ts'

/** Number of a chunk in its store; 0 is none. */
export type ChunkId = number

/** Chunks of a file: `count` places of the store's list from `start` on. */
export interface ChunkList {
  readonly start: number
  readonly count: number
}

export const NO_CHUNKS: ChunkList = { start: 0, count: 0 }

/** Words of a row; offsets take two, the digest eight. */
const WORD = {
  blobAndFlags: 0,
  index: 1,
  compressedSize: 2,
  uncompressedSize: 3,
  compressedOffset: 4,
  uncompressedOffset: 6,
  crc32c: 8,
  digest: 9,
} as const
const ROW_WORDS = 17
const DIGEST_WORDS = 8
const DIGEST_BYTES = 32

/** The low half of the first word numbers the blob. */
const BLOB_MASK = 0xffff
const FLAGS = { COMPRESSED: 0x1_0000, HAS_CRC32C: 0x2_0000, ENCRYPTED: 0x4_0000 } as const

/** Chunks, and which of them files are made of: 68 bytes a chunk, 4 for each use. */
export class ChunkStore {
  readonly #rows = new Rows(ROW_WORDS)
  readonly #uses = new Rows(1)
  readonly #byDigest = new HashIndex()
  /** The digest that is looked for, as words. */
  readonly #wanted = new Uint32Array(DIGEST_WORDS)
  readonly #wantedBytes = new Uint8Array(this.#wanted.buffer)

  /** Chunk numbers are below this. */
  get end(): ChunkId {
    return this.#rows.count
  }

  add(chunk: RafsChunk): ChunkId {
    const id = this.#rows.add()
    const { digest, crc32c } = chunk
    this.#rows.bytes(id, WORD.digest, DIGEST_BYTES).set(digest)
    this.#rows.set(id, WORD.uncompressedSize, chunk.uncompressedSize)
    const view = this.at(id)
    view.blobIndex = chunk.blobIndex
    view.index = chunk.index
    view.compressedOffset = chunk.compressedOffset
    view.compressedSize = chunk.compressedSize
    view.uncompressedOffset = chunk.uncompressedOffset
    view.compressed = chunk.compressed
    view.encrypted = chunk.encrypted
    view.crc32c = crc32c
    return id
  }

  /** The chunk as an object; two of one chunk are equal in `id`, not as objects. */
  at(id: ChunkId): StoredChunk {
    return new StoredChunk(this.#rows, id)
  }

  /** Makes {@link find} find it by its digest, unless it finds another by that. */
  index(id: ChunkId): void {
    const hash = this.#hash(id)
    if (this.#byDigest.find(hash, (other) => this.#isEqual(other, id)) === 0) this.#byDigest.add(hash, id)
  }

  /** The digest's first four bytes, in the order of bytes. */
  prefix(id: ChunkId): number {
    const word = this.#rows.get(id, WORD.digest)
    return (((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0
  }

  find(digest: Uint8Array): ChunkId {
    const wanted = this.#wanted
    this.#wantedBytes.set(digest)
    let hash = 0
    for (const word of wanted) hash = mix(hash, word)
    return this.#byDigest.find(hash, (id) => {
      for (let word = 0; word < DIGEST_WORDS; word++)
        if (this.#rows.get(id, WORD.digest + word) !== wanted[word]) return false
      return true
    })
  }

  /** No chunk is to be found by its digest any more: lets go of the memory for it. */
  closeIndex(): void {
    this.#byDigest.clear()
  }

  /** A list of chunks that are to be {@link setUse}. */
  addList(count: number): ChunkList {
    return { start: this.#uses.add(count), count }
  }

  /** The chunk at a place of the list; 0 when it is not known yet. */
  use(place: number): ChunkId {
    return this.#uses.get(place, 0)
  }

  setUse(place: number, id: ChunkId): void {
    this.#uses.set(place, 0, id)
  }

  #isEqual(a: ChunkId, b: ChunkId): boolean {
    for (let word = WORD.digest; word < WORD.digest + DIGEST_WORDS; word++)
      if (this.#rows.get(a, word) !== this.#rows.get(b, word)) return false
    return true
  }

  #hash(id: ChunkId): number {
    let hash = 0
    for (let word = 0; word < DIGEST_WORDS; word++) hash = mix(hash, this.#rows.get(id, WORD.digest + word))
    return hash
  }
}

/** A chunk of a store, to read and to alter. */
export class StoredChunk implements RafsChunk {
  readonly #rows: Rows
  readonly id: ChunkId

  constructor(rows: Rows, id: ChunkId) {
    this.#rows = rows
    this.id = id
  }

  /** A view. */
  get digest(): Uint8Array {
    return this.#rows.bytes(this.id, WORD.digest, DIGEST_BYTES)
  }

  get blobIndex(): number {
    return this.#rows.get(this.id, WORD.blobAndFlags) & BLOB_MASK
  }

  /** Throws 'TOO_LARGE' beyond 65,535. */
  set blobIndex(value: number) {
    if (value > BLOB_MASK)
      throw new RafsError(
        'TOO_LARGE',
        `a chunk lies in blob ${value}; images of more than ${BLOB_MASK + 1} blobs are not put together anew`,
      )
    this.#rows.set(this.id, WORD.blobAndFlags, (this.#rows.get(this.id, WORD.blobAndFlags) & ~BLOB_MASK) | value)
  }

  get index(): number {
    return this.#rows.get(this.id, WORD.index)
  }

  set index(value: number) {
    this.#rows.set(this.id, WORD.index, value)
  }

  get compressedOffset(): number {
    return this.#rows.getLong(this.id, WORD.compressedOffset)
  }

  set compressedOffset(value: number) {
    this.#rows.setLong(this.id, WORD.compressedOffset, value)
  }

  get compressedSize(): number {
    return this.#rows.get(this.id, WORD.compressedSize)
  }

  set compressedSize(value: number) {
    this.#rows.set(this.id, WORD.compressedSize, value)
  }

  get uncompressedOffset(): number {
    return this.#rows.getLong(this.id, WORD.uncompressedOffset)
  }

  set uncompressedOffset(value: number) {
    this.#rows.setLong(this.id, WORD.uncompressedOffset, value)
  }

  get uncompressedSize(): number {
    return this.#rows.get(this.id, WORD.uncompressedSize)
  }

  get compressed(): boolean {
    return this.#flag(FLAGS.COMPRESSED)
  }

  set compressed(value: boolean) {
    this.#setFlag(FLAGS.COMPRESSED, value)
  }

  get encrypted(): boolean {
    return this.#flag(FLAGS.ENCRYPTED)
  }

  set encrypted(value: boolean) {
    this.#setFlag(FLAGS.ENCRYPTED, value)
  }

  get crc32c(): number | undefined {
    return this.#flag(FLAGS.HAS_CRC32C) ? this.#rows.get(this.id, WORD.crc32c) : undefined
  }

  set crc32c(value: number | undefined) {
    this.#setFlag(FLAGS.HAS_CRC32C, value !== undefined)
    this.#rows.set(this.id, WORD.crc32c, value ?? 0)
  }

  #flag(flag: number): boolean {
    return (this.#rows.get(this.id, WORD.blobAndFlags) & flag) !== 0
  }

  #setFlag(flag: number, isSet: boolean): void {
    const word = this.#rows.get(this.id, WORD.blobAndFlags)
    this.#rows.set(this.id, WORD.blobAndFlags, isSet ? word | flag : word & ~flag)
  }
}
