import { Rows } from '../../rafs/index.ts'

/** A part of a file, in a gzip member of its own. */
export interface TocChunk {
  /** Where its gzip member starts in the layer. */
  readonly offset: number
  /** Of the file's bytes. */
  readonly chunkOffset: number
  /** 0: up to the end of the file. */
  readonly chunkSize: number
  readonly digest: Uint8Array
}

/** A file with content, and its chunks as the table lists them. */
export interface TocFile {
  readonly size: number
  readonly chunks: readonly TocChunk[]
}

/** Words of rows; numbers take two, the digest eight. */
const FILE = { size: 0, first: 2, count: 3 } as const
const FILE_WORDS = 4
const CHUNK = { offset: 0, chunkOffset: 2, chunkSize: 4, digest: 6 } as const
const CHUNK_WORDS = 14
const DIGEST_BYTES = 32

/** Files of a table of contents by their numbers, from 1 on, and their chunks: 16 bytes a file and 56 a chunk, where objects took a thousand. */
export class TocFiles {
  readonly #files = new Rows(FILE_WORDS)
  readonly #chunks = new Rows(CHUNK_WORDS)

  /** Numbers are below this. */
  get end(): number {
    return this.#files.count
  }

  /** Gives the number of a file without chunks: they are added before the next file is. */
  add(size: number): number {
    const file = this.#files.add()
    this.#files.setLong(file, FILE.size, size)
    this.#files.set(file, FILE.first, this.#chunks.count)
    return file
  }

  /** One more chunk of the file that was added last. */
  addChunk({ offset, chunkOffset, chunkSize, digest }: TocChunk): void {
    const file = this.#files.count - 1
    this.#files.set(file, FILE.count, this.#files.get(file, FILE.count) + 1)
    const row = this.#chunks.add()
    this.#chunks.setLong(row, CHUNK.offset, offset)
    this.#chunks.setLong(row, CHUNK.chunkOffset, chunkOffset)
    this.#chunks.setLong(row, CHUNK.chunkSize, chunkSize)
    this.#chunks.bytes(row, CHUNK.digest, DIGEST_BYTES).set(digest)
  }

  /** Digests are views. */
  at(file: number): TocFile {
    const first = this.#files.get(file, FILE.first)
    const chunks = Array.from({ length: this.#files.get(file, FILE.count) }, (_unused, at) => this.#chunk(first + at))
    return { size: this.#files.getLong(file, FILE.size), chunks }
  }

  /** Where the members of all chunks start, ascending. */
  offsets(): Float64Array {
    const found = new Float64Array(this.#chunks.count - 1)
    for (let row = 1; row < this.#chunks.count; row += 1) found[row - 1] = this.#chunks.getLong(row, CHUNK.offset)
    return found.sort()
  }

  #chunk(row: number): TocChunk {
    return {
      offset: this.#chunks.getLong(row, CHUNK.offset),
      chunkOffset: this.#chunks.getLong(row, CHUNK.chunkOffset),
      chunkSize: this.#chunks.getLong(row, CHUNK.chunkSize),
      digest: this.#chunks.bytes(row, CHUNK.digest, DIGEST_BYTES),
    }
  }
}
