import type { BlobInfo, ChunkInfo } from '../blob/index.ts'
import { chunkFrom, type ChunkId, type ChunkStore, MAX_BLOBS, type StoredChunk } from '../rafs/index.ts'
import { BuilderError } from './errors.ts'
import { toKey } from './image-path.ts'

/** One chunk of the image that is built. Its place in the blob is filled in when it is stored. */
export type ChunkRecord = StoredChunk

/** A chunk of another image, to be referred to. */
export interface KnownChunk extends ChunkInfo {
  readonly blobIndex: number
  readonly crc32c: number | undefined
}

/** The blobs and chunks of another image whose data is used instead of storing it again. */
export class ChunkDictionary {
  readonly blobs: readonly BlobInfo[]
  readonly #chunks = new Map<string, KnownChunk>()

  /** Of two chunks with one digest the first counts. */
  constructor(blobs: readonly BlobInfo[], chunks: Iterable<KnownChunk>) {
    this.blobs = blobs
    for (const chunk of chunks) {
      const key = toKey(chunk.digest)
      if (!this.#chunks.has(key)) this.#chunks.set(key, chunk)
    }
  }

  get(key: string): KnownChunk | undefined {
    return this.#chunks.get(key)
  }
}

/** Where the table's blob comes from: the layer that is built, or another image. */
export type TableBlob = { readonly kind: 'own' } | { readonly kind: 'known'; readonly blob: BlobInfo }

/**
 * Decides which chunks are stored: the same decisions as the original's. The chunk dictionary is asked first, then what the parent image and this layer
 * hold; a chunk fits when digest and size are equal. A blob enters the table when its first chunk is used: the dictionary's, and the layer's own. The
 * parent's are there from the start.
 */
export class LayerDictionary {
  readonly #global: ChunkDictionary | undefined
  readonly #chunks: ChunkStore
  readonly #used = new Map<KnownChunk, ChunkId>()
  readonly #blobs: TableBlob[] = []
  readonly #globalIndex = new Map<number, number>()
  #ownIndex: number | undefined
  readonly counts = { storedBytes: 0, duplicateChunks: 0, duplicateBytes: 0 }

  /** Chunks are kept in `chunks`, which the parent's must be in already. */
  constructor(global: ChunkDictionary | undefined, chunks: ChunkStore) {
    this.#global = global
    this.#chunks = chunks
  }

  /** The parent's blobs come first in the table. To be called before anything else. */
  addParent(blobs: readonly BlobInfo[], chunks: Iterable<ChunkId>): void {
    for (const blob of blobs) this.#addBlob({ kind: 'known', blob })
    for (const chunk of chunks) this.#chunks.index(chunk)
  }

  /** In table order. */
  get blobs(): readonly TableBlob[] {
    return this.#blobs
  }

  /** A chunk with this digest and size, which counts as used from now on; 0 when there is none. */
  find(digest: Uint8Array, uncompressedSize: number): ChunkId {
    const found = this.#findGlobal(digest, uncompressedSize) || this.#findLayered(digest, uncompressedSize)
    if (found !== 0) {
      this.counts.duplicateChunks += 1
      this.counts.duplicateBytes += uncompressedSize
    }
    return found
  }

  /** A new chunk of the layer's own blob. */
  add({
    digest,
    uncompressedSize,
    encrypted,
  }: Pick<ChunkRecord, 'digest' | 'uncompressedSize' | 'encrypted'>): ChunkId {
    this.#ownIndex ??= this.#addBlob({ kind: 'own' })
    this.counts.storedBytes += uncompressedSize
    const id = this.#chunks.add({
      blobIndex: this.#ownIndex,
      index: 0,
      digest,
      crc32c: undefined,
      compressedOffset: 0,
      compressedSize: 0,
      uncompressedOffset: 0,
      uncompressedSize,
      compressed: false,
      encrypted,
    })
    this.#chunks.index(id)
    return id
  }

  chunk(id: ChunkId): ChunkRecord {
    return this.#chunks.at(id)
  }

  /** No more chunks come: lets go of what only finding them needs. */
  close(): void {
    this.#chunks.closeIndex()
    this.#used.clear()
  }

  #findLayered(digest: Uint8Array, uncompressedSize: number): ChunkId {
    const id = this.#chunks.find(digest)
    return id !== 0 && this.#chunks.at(id).uncompressedSize === uncompressedSize ? id : 0
  }

  #findGlobal(digest: Uint8Array, uncompressedSize: number): ChunkId {
    const chunk = this.#global?.get(toKey(digest))
    if (chunk?.uncompressedSize !== uncompressedSize) return 0
    const used = this.#used.get(chunk)
    if (used !== undefined) return used
    const id = this.#chunks.add(chunkFrom(chunk, this.#globalBlob(chunk.blobIndex)))
    this.#used.set(chunk, id)
    return id
  }

  #globalBlob(index: number): number {
    const known = this.#globalIndex.get(index)
    if (known !== undefined) return known
    const blob = this.#global?.blobs[index]
    if (blob === undefined)
      throw new BuilderError(
        'BAD_LAYER',
        `the chunk dictionary has a chunk of blob ${index}, which its table does not have`,
      )
    const at = this.#addBlob({ kind: 'known', blob })
    this.#globalIndex.set(index, at)
    return at
  }

  #addBlob(blob: TableBlob): number {
    if (this.#blobs.length >= MAX_BLOBS)
      throw new BuilderError('TOO_LARGE', `the image would refer to more than ${MAX_BLOBS} blobs`)
    return this.#blobs.push(blob) - 1
  }
}
