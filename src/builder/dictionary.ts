import type { BlobInfo, ChunkInfo } from '../blob/index.ts'
import { BuilderError } from './errors.ts'

/** Blobs that a v6 bootstrap can address. Source: docs/formats/rafs-v6.md, "Chunk addresses". */
const MAX_BLOBS = 254

/**
 * One chunk of the image that is built. Files that share a chunk share the record; its place in the blob is filled in when it is stored.
 */
export interface ChunkRecord {
  /** Position in the table of the image that is built. */
  blobIndex: number
  /** Number in its blob. */
  index: number
  readonly digest: Uint8Array
  /** Undefined: the image that it comes from has none. */
  crc32c: number | undefined
  compressedOffset: number
  compressedSize: number
  uncompressedOffset: number
  readonly uncompressedSize: number
  compressed: boolean
  encrypted: boolean
}

/** A chunk of another image, to be referred to. */
export interface KnownChunk extends ChunkInfo {
  readonly blobIndex: number
  readonly crc32c: number | undefined
}

/** The map key of a digest. */
export function digestKey(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.length).toString('latin1')
}

/** The blobs and chunks of another image whose data is used instead of storing it again. */
export class ChunkDictionary {
  readonly blobs: readonly BlobInfo[]
  readonly #chunks = new Map<string, KnownChunk>()

  /** Of two chunks with one digest the first counts. */
  constructor(blobs: readonly BlobInfo[], chunks: Iterable<KnownChunk>) {
    this.blobs = blobs
    for (const chunk of chunks) {
      const key = digestKey(chunk.digest)
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
  readonly #layered = new Map<string, ChunkRecord>()
  readonly #used = new Map<KnownChunk, ChunkRecord>()
  readonly #blobs: TableBlob[] = []
  readonly #globalIndex = new Map<number, number>()
  #ownIndex: number | undefined
  readonly counts = { storedBytes: 0, duplicateChunks: 0, duplicateBytes: 0 }

  constructor(global: ChunkDictionary | undefined) {
    this.#global = global
  }

  /** The parent's blobs come first in the table. To be called before anything else. */
  addParent(blobs: readonly BlobInfo[], chunks: Iterable<ChunkRecord>): void {
    for (const blob of blobs) this.#addBlob({ kind: 'known', blob })
    for (const chunk of chunks) this.#remember(digestKey(chunk.digest), chunk)
  }

  /** In table order. */
  get blobs(): readonly TableBlob[] {
    return this.#blobs
  }

  /** A chunk with this digest and size, which counts as used from now on. */
  find(key: string, uncompressedSize: number): ChunkRecord | undefined {
    const found = this.#findGlobal(key, uncompressedSize) ?? this.#findLayered(key, uncompressedSize)
    if (found !== undefined) {
      this.counts.duplicateChunks += 1
      this.counts.duplicateBytes += uncompressedSize
    }
    return found
  }

  /** A new chunk of the layer's own blob. */
  add(key: string, chunk: Pick<ChunkRecord, 'digest' | 'uncompressedSize' | 'encrypted'>): ChunkRecord {
    this.#ownIndex ??= this.#addBlob({ kind: 'own' })
    this.counts.storedBytes += chunk.uncompressedSize
    const record: ChunkRecord = {
      blobIndex: this.#ownIndex,
      index: 0,
      digest: chunk.digest,
      crc32c: undefined,
      compressedOffset: 0,
      compressedSize: 0,
      uncompressedOffset: 0,
      uncompressedSize: chunk.uncompressedSize,
      compressed: false,
      encrypted: chunk.encrypted,
    }
    this.#remember(key, record)
    return record
  }

  /** No more chunks come: lets go of what only finding them needs. */
  close(): void {
    this.#layered.clear()
    this.#used.clear()
  }

  #findLayered(key: string, uncompressedSize: number): ChunkRecord | undefined {
    const record = this.#layered.get(key)
    return record?.uncompressedSize === uncompressedSize ? record : undefined
  }

  #findGlobal(key: string, uncompressedSize: number): ChunkRecord | undefined {
    const chunk = this.#global?.get(key)
    if (chunk?.uncompressedSize !== uncompressedSize) return undefined
    const used = this.#used.get(chunk)
    if (used !== undefined) return used
    const record: ChunkRecord = {
      blobIndex: this.#globalBlob(chunk.blobIndex),
      index: chunk.index,
      digest: chunk.digest,
      crc32c: chunk.crc32c,
      compressedOffset: chunk.compressedOffset,
      compressedSize: chunk.compressedSize,
      uncompressedOffset: chunk.uncompressedOffset,
      uncompressedSize,
      compressed: chunk.compressed,
      encrypted: chunk.encrypted,
    }
    this.#used.set(chunk, record)
    return record
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

  #remember(key: string, record: ChunkRecord): void {
    if (!this.#layered.has(key)) this.#layered.set(key, record)
  }
}
