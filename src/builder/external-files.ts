/**
 * Files whose data is not stored here: attributes say in which blob of another backend it lies. They are in a bootstrap of their own, with the directories that lead to them. Source: docs/formats/blob.md,
 * "External blobs".
 */
import { BLOB_FEATURES, type BlobInfo, MAX_BLOB_CHUNKS } from '../blob/index.ts'
import type { DigestName } from '../codec/index.ts'
import { type ChunkList, FileTree, MAX_BLOBS, type NodeId, type RafsChunk } from '../rafs/index.ts'
import { type Attributes, parseSize, type PathAttributes } from './attributes.ts'
import { BuilderError } from './errors.ts'
import { shown } from './image-path.ts'

const MAX_FILE_CHUNKS = 2 ** 24
const BLOB_ID_LENGTH = 64
const NO_DIGEST = new Uint8Array(32)

/** A tree of its own. */
interface SplitTree {
  readonly files: FileTree
  readonly root: NodeId
}

/**
 * Takes external files out of a tree into one of their own. A directory that leads to some stays where it was when it has other entries; the original loses these. Gives the other tree.
 */
export function splitExternal(files: FileTree, root: NodeId, attributes: Attributes): SplitTree {
  const external = new FileTree()
  /** Names of one file share a copy. */
  const copies = new Map<NodeId, NodeId>()
  const copy = (id: NodeId, into: NodeId): void => {
    const known = copies.get(files.inode(id))
    if (known !== undefined) external.link(into, files.text(id), known)
    else copies.set(files.inode(id), external.put(into, files.text(id), files.values(id)))
  }
  const split = (directory: NodeId, into: NodeId): void => {
    for (const id of files.children(directory)) {
      if (!attributes.isExternal(files.path(id))) continue
      if (files.isDirectory(id)) {
        split(id, external.put(into, files.text(id), files.values(id)))
        if (files.firstChild(id) === 0) files.remove(id)
        continue
      }
      copy(id, into)
      files.remove(id)
    }
  }
  const externalRoot = external.addRoot(files.values(root))
  split(root, externalRoot)
  return { files: external, root: externalRoot }
}

export interface ExternalOptions {
  readonly digest: DigestName
  readonly inlineBootstrap: boolean
}

interface ExternalBlob {
  id: string
  size: number
  chunkSize: number
  chunkCount: number
}

/** Gives files their chunks, which are stored plain in the blobs that attributes name. Gives those blobs. Throws BuilderError 'BAD_OPTION' that names the file. */
export function placeExternal(
  { files, root }: SplitTree,
  attributes: Attributes,
  options: ExternalOptions,
): BlobInfo[] {
  const blobs: Array<ExternalBlob | undefined> = []
  const done = new Set<NodeId>()
  for (const id of files.hybridOrder(root)) {
    if (!files.isFile(id) || done.has(files.inode(id))) continue
    done.add(files.inode(id))
    const path = files.path(id)
    const values = attributes.of(path)
    if (values === undefined) continue
    const file = new ExternalFile(path, values)
    if (files.size(id) === 0) files.setSize(id, file.size)
    if (files.size(id) > 0) files.setChunks(id, listOf(files, file.chunks(files.size(id), blobs)))
  }
  return Array.from(blobs, (blob, index) => {
    if (blob !== undefined) return infoOf(blob, index, options)
    throw new BuilderError('BAD_OPTION', `the attributes name no file of blob ${index}, but files of later ones`)
  })
}

function listOf(files: FileTree, chunks: readonly RafsChunk[]): ChunkList {
  const list = files.chunks.addList(chunks.length)
  for (const [at, chunk] of chunks.entries()) files.chunks.setUse(list.start + at, files.chunks.add(chunk))
  return list
}

class ExternalFile {
  readonly #path: string
  readonly #values: PathAttributes

  constructor(path: string, values: PathAttributes) {
    this.#path = path
    this.#values = values
  }

  /** Of a file that is there as an empty one only. */
  get size(): number {
    return this.#values.has('file_size') ? this.#number('file_size') : 0
  }

  chunks(size: number, blobs: Array<ExternalBlob | undefined>): RafsChunk[] {
    const blobIndex = this.#number('blob_index')
    if (blobIndex >= MAX_BLOBS) throw this.#bad(`blob_index is ${blobIndex}, an image has up to ${MAX_BLOBS} blobs`)
    const blob = (blobs[blobIndex] ??= { id: '', size: 0, chunkSize: 0, chunkCount: 0 })
    this.#describe(blob)
    const start = this.#number('chunk_0_compressed_offset')
    const count = Math.ceil(size / blob.chunkSize)
    if (count > MAX_FILE_CHUNKS || blob.chunkCount + count > MAX_BLOB_CHUNKS)
      throw this.#bad(`it would have ${count} chunks; use a larger chunk_size`)
    if (start + size > blob.size) throw this.#bad(`it ends at byte ${start + size} of a blob of ${blob.size}`)
    const sums = this.#sums(count)
    return Array.from({ length: count }, (_unused, at) => {
      const offset = start + at * blob.chunkSize
      const length = Math.min(blob.chunkSize, size - at * blob.chunkSize)
      const place = {
        compressedOffset: offset,
        compressedSize: length,
        uncompressedOffset: offset,
        uncompressedSize: length,
      }
      const index = blob.chunkCount++
      return { blobIndex, index, digest: NO_DIGEST, crc32c: sums[at], ...place, compressed: false, encrypted: false }
    })
  }

  #describe(blob: ExternalBlob): void {
    const id = this.#value('blob_id')
    if (!/^[0-9A-Za-z]{64}$/.test(id))
      throw this.#bad(`invalid blob id:${id}, length:${id.length}; it must have ${BLOB_ID_LENGTH} digits`)
    const size = this.#number('compressed_size')
    const chunkSize = parseSize(this.#value('chunk_size'))
    if (chunkSize === undefined || chunkSize === 0 || chunkSize >= 2 ** 32)
      throw this.#bad('failed to parse chunk_size')
    if (blob.chunkSize !== 0) {
      this.#compare('blob_id', id, blob.id)
      this.#compare('compressed_size', size, blob.size)
      this.#compare('chunk_size', chunkSize, blob.chunkSize)
    }
    Object.assign(blob, { id, size, chunkSize })
  }

  #compare(key: string, value: number | string, other: number | string): void {
    if (value !== other) throw this.#bad(`its ${key} is ${value}, another file of that blob has ${other}`)
  }

  /** There are no digests, so every chunk must have one. */
  #sums(count: number): number[] {
    const words = (this.#values.get('crcs') ?? '').split(',').map((word) => word.trim().replace(/^0x/, ''))
    const sums = words.map((word) => (/^[0-9a-fA-F]{1,8}$/.test(word) ? Number.parseInt(word, 16) : Number.NaN))
    const bad = sums.slice(0, count).findIndex(Number.isNaN)
    if (sums.length >= count && bad < 0) return sums
    throw new BuilderError('BAD_OPTION', `invalid crc index ${bad < 0 ? sums.length : bad} for file ${this.#path}`)
  }

  #number(key: string): number {
    const value = Number(/^\d+$/.test(this.#value(key)) ? this.#value(key) : Number.NaN)
    if (!Number.isSafeInteger(value)) throw this.#bad(`failed to parse ${key}`)
    return value
  }

  #value(key: string): string {
    const value = this.#values.get(key)
    if (value === undefined) throw this.#bad(`failed to parse ${key}`)
    return value
  }

  #bad(why: string): BuilderError {
    return new BuilderError('BAD_OPTION', `the external file ${shown(this.#path)}: ${why}`)
  }
}

function infoOf({ id, size, chunkSize, chunkCount }: ExternalBlob, index: number, options: ExternalOptions): BlobInfo {
  const { CAP_TAR_TOC, EXTERNAL, INLINED_FS_META, HAS_TAR_HEADER } = BLOB_FEATURES
  return {
    index,
    id,
    features: CAP_TAR_TOC | EXTERNAL | (options.inlineBootstrap ? INLINED_FS_META | HAS_TAR_HEADER : 0),
    chunkSize,
    chunkCount,
    compression: 'none',
    digest: options.digest,
    compressedSize: size,
    uncompressedSize: size,
    prefetchSize: 0,
    metaOffset: 0,
    metaCompressedSize: 0,
    metaUncompressedSize: 0,
    metaCompression: 'none',
    tocSize: 0,
    tocDigest: undefined,
  }
}
