import { type BlobInfo, type BlobLayout, ChunkInfo } from '../blob/index.ts'
import type { ByteReader } from './byte-reader.ts'
import { CHUNK_RECORD, readChunkRecord } from './chunk-record.ts'
import { RafsError } from './errors.ts'
import { PlaceList } from './place-list.ts'

/** Collects where the records of each blob's chunks lie; many records of one chunk (deduplicated files of v5) count once. */
export class ChunkRows {
  readonly #from: ByteReader
  readonly #blobs: readonly BlobInfo[]
  /** Places of records, by blob. */
  readonly #places: readonly PlaceList[]

  constructor(from: ByteReader, blobs: readonly BlobInfo[]) {
    this.#from = from
    this.#blobs = blobs
    this.#places = blobs.map(() => new PlaceList())
  }

  /** Notes the record at `at`. Throws 'BAD_CHUNK' when it names no blob of the image. */
  add(at: number): void {
    const blobIndex = this.#from.u32(at + CHUNK_RECORD.blobIndex)
    const places = this.#places[blobIndex]
    if (places === undefined)
      throw new RafsError(
        'BAD_CHUNK',
        `the chunk record at byte ${at} names blob ${blobIndex} of ${this.#blobs.length}; the bootstrap is damaged or crafted`,
      )
    places.push(at)
  }

  /** To be asked once. */
  layouts(): BlobLayout[] {
    return this.#places.map((places, index) => {
      const layout = new RowLayout(this.#from, this.#blobs[index], places.all)
      places.clear()
      return layout
    })
  }
}

/** A layout over chunk records of a bootstrap: 4 to 8 bytes of memory a chunk; records are decoded and checked when they are asked for. */
class RowLayout implements BlobLayout {
  readonly chunkCount: number
  readonly uncompressedSize: number
  readonly #from: ByteReader
  readonly #blob: BlobInfo
  /** Chunk numbers, ascending; undefined when they are the places of `#places` (all but damaged images). */
  readonly #indexes: Uint32Array | undefined
  /** Where each one's record lies; 0 where there is none. */
  readonly #places: Uint32Array

  constructor(from: ByteReader, blob: BlobInfo, places: Uint32Array) {
    this.#from = from
    this.#blob = blob
    let last = -1
    for (const at of places) last = Math.max(last, from.u32(at + CHUNK_RECORD.index))
    if (last < 2 * places.length) {
      this.#places = new Uint32Array(last + 1)
      for (const at of places) this.#places[from.u32(at + CHUNK_RECORD.index)] = at
    } else {
      const byIndex = new Map<number, number>()
      for (const at of places) byIndex.set(from.u32(at + CHUNK_RECORD.index), at)
      this.#indexes = Uint32Array.from(byIndex.keys()).sort()
      this.#places = this.#indexes.map((index) => byIndex.get(index) ?? 0)
    }
    // Images without an extended blob table (very old v5) do not say how many chunks a blob has.
    this.chunkCount = blob.chunkCount > 0 ? blob.chunkCount : last + 1
    this.uncompressedSize = blob.uncompressedSize > 0 ? blob.uncompressedSize : this.#end(last)
  }

  has(index: number): boolean {
    return this.#slot(index) >= 0
  }

  next(index: number): number {
    const indexes = this.#indexes
    if (indexes === undefined) {
      for (let at = index; at < this.#places.length; at++) if (this.#places[at] > 0) return at
      return this.chunkCount
    }
    return indexes[this.#firstFrom(index)] ?? this.chunkCount
  }

  chunk(index: number, into: ChunkInfo): void {
    const slot = this.#slot(index)
    if (slot < 0)
      throw new RafsError('BAD_CHUNK', `the bootstrap has no record of chunk ${index} of blob ${this.#blob.id}`)
    readChunkRecord(this.#from, this.#places[slot], this.#blob, into) // the slot was found
  }

  #slot(index: number): number {
    const indexes = this.#indexes
    if (indexes === undefined) return this.#places[index] > 0 ? index : -1
    const at = this.#firstFrom(index)
    return indexes[at] === index ? at : -1
  }

  /** Of the sorted numbers, the position of the first that is not below `index`. */
  #firstFrom(index: number): number {
    const indexes = this.#indexes ?? new Uint32Array(0)
    let low = 0
    let high = indexes.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (indexes[middle] < index) low = middle + 1
      else high = middle
    }
    return low
  }

  #end(last: number): number {
    if (last < 0) return 0
    const chunk = new ChunkInfo()
    this.chunk(last, chunk)
    return chunk.uncompressedOffset + chunk.uncompressedSize
  }
}
