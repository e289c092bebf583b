import { createHash } from 'node:crypto'
import {
  BLOB_FEATURES,
  type BlobInfo,
  encodeMetaBlob,
  MAX_BLOB_BYTES,
  MAX_BLOB_CHUNKS,
  type MetaBlob,
} from '../blob/index.ts'
import { type ChunkId, type ChunkList, FileTree, type NodeId, type RafsChunk, Rows } from '../rafs/index.ts'
import type { BuiltLayer } from './built-layer.ts'
import { BuilderError, coded } from './errors.ts'
import { shown } from './image-path.ts'
import type { LayerOptions, LayerRun } from './layer-options.ts'
import { layerBootstrap } from './layer-bootstrap.ts'
import { readTocLayer, type TocLayer } from './sources/stargz-toc.ts'
import type { TocChunk, TocFile } from './sources/toc-files.ts'

/** What of a layer's options an image over an eStargz layer has a use for. */
export type StargzOptions = Pick<LayerOptions, 'chunkSize' | 'keepOwners' | 'prefetch'> & {
  /** Id of the layer: its SHA-256. */
  readonly blobId: string
  /** Its size, bytes. */
  readonly blobSize: number
}

/** Of a gzip member's header and trailer. */
const MIN_MEMBER_BYTES = 10 + 8
const BLOCK = 4096
const FEATURES = BLOB_FEATURES.ALIGNED | BLOB_FEATURES.SEPARATE | BLOB_FEATURES.CAP_TAR_TOC

/**
 * Builds a bootstrap over an eStargz layer from the layer's table of contents alone. The layer is the image's blob as it is: each chunk of a file starts a gzip member in it. Into the sink goes what tells the original's readers
 * where chunks are, a blob of its own. Source:
 * docs/formats/estargz.md, "Images". Throws BuilderError.
 */
export async function buildStargzLayer(
  stream: AsyncIterable<Uint8Array>,
  options: StargzOptions & LayerRun,
): Promise<BuiltLayer> {
  const started = performance.now()
  if (options.blobSize > MAX_BLOB_BYTES)
    throw new BuilderError('TOO_LARGE', `a layer of ${options.blobSize} bytes; RAFS v6 can name ${MAX_BLOB_BYTES}`)
  try {
    const files = new FileTree()
    const layer = await readTocLayer(stream, { ...options, files })
    const chunks = new StargzChunks(files, layer, options)
    placeChunks(files, layer, chunks)
    const treeSeconds = (performance.now() - started) / 1000
    return await write(files, layer.root, chunks, options, treeSeconds)
  } catch (error) {
    options.signal.throwIfAborted()
    throw coded(error)
  }
}

/** Gives files their chunks, which get their numbers in the order of the table. */
function placeChunks(files: FileTree, { root, files: listed, ofLayer }: TocLayer, chunks: StargzChunks): void {
  const owners = new Uint32Array(listed.end)
  for (const id of files.hybridOrder(root)) if (files.chunkCount(id) > 0) owners[files.chunk(id, 0)] = id
  for (let file = 1; file < listed.end; file += 1) {
    if (ofLayer.has(file)) continue
    const owner = owners[file] ?? 0
    const name = (): string => (owner === 0 ? 'an entry that a later one replaces' : shown(files.path(owner)))
    const list = chunks.of(listed.at(file), name)
    if (owner > 0) files.setChunks(owner, list)
  }
}

/** Gives chunks their numbers and places. One that is met again is the first one: readers find chunks by their digest. */
class StargzChunks {
  uncompressedSize = 0
  /** Of chunks in the order of their numbers. */
  readonly #ids = new Rows(1)
  duplicates = 0
  duplicateBytes = 0
  readonly #offsets: Float64Array
  readonly #chunkSize: number
  readonly #blobSize: number
  readonly #files: FileTree

  constructor(files: FileTree, layer: TocLayer, { chunkSize, blobSize }: StargzOptions) {
    this.#files = files
    const offsets = layer.files.offsets()
    this.#offsets = offsets
    this.#chunkSize = chunkSize
    this.#blobSize = blobSize
    const last = offsets.at(-1) ?? 0
    if (last >= blobSize && offsets.length > 0)
      throw new BuilderError(
        'BAD_SOURCE',
        `stargz: the table of contents has data at byte ${last} of a layer of ${blobSize} bytes; --blob-data-size is its size in hexadecimal`,
      )
  }

  get count(): number {
    return this.#ids.count - 1
  }

  /** In the order of their numbers. */
  *records(): Generator<RafsChunk> {
    for (let row = 1; row < this.#ids.count; row += 1) yield this.#files.chunks.at(this.#ids.get(row, 0))
  }

  /** All chunks of a file. */
  of({ size, chunks }: TocFile, name: () => string): ChunkList {
    const bad = (why: string): BuilderError =>
      new BuilderError('BAD_SOURCE', `stargz: the chunks of ${name()} cannot be used: ${why}`)
    const sorted = chunks.length === 1 ? chunks : [...chunks].sort((a, b) => a.chunkOffset - b.chunkOffset)
    if (chunks.length !== Math.ceil(size / this.#chunkSize))
      throw bad(
        `it has ${size} bytes in ${chunks.length} chunks, the image has chunks of ${this.#chunkSize}; --chunk-size must be that of the layer`,
      )
    const list = this.#files.chunks.addList(sorted.length)
    for (const [at, chunk] of sorted.entries()) {
      const start = at * this.#chunkSize
      const length = Math.min(this.#chunkSize, size - start)
      const told = chunk.chunkSize === 0 ? size - chunk.chunkOffset : chunk.chunkSize
      if (chunk.chunkOffset !== start || told !== length)
        throw bad(
          `one has bytes ${chunk.chunkOffset} to ${chunk.chunkOffset + told}, wanted are ${start} to ${start + length}`,
        )
      this.#files.chunks.setUse(list.start + at, this.#record(chunk, length, bad))
    }
    return list
  }

  #record(chunk: TocChunk, length: number, bad: (why: string) => BuilderError): ChunkId {
    const { chunks } = this.#files
    const known = chunks.find(chunk.digest)
    if (known !== 0) {
      if (chunks.at(known).uncompressedSize !== length) throw bad('a chunk of another size has the same digest')
      this.duplicates += 1
      this.duplicateBytes += length
      return known
    }
    if (this.count === MAX_BLOB_CHUNKS)
      throw new BuilderError('TOO_LARGE', `the layer has more than ${MAX_BLOB_CHUNKS} different chunks`)
    const room = this.#next(chunk.offset) - chunk.offset
    if (room < MIN_MEMBER_BYTES)
      throw bad(
        `the gzip member at byte ${chunk.offset} would have ${room} bytes, none has fewer than ${MIN_MEMBER_BYTES}`,
      )
    const id = chunks.add({
      blobIndex: 0,
      index: this.count,
      digest: chunk.digest,
      crc32c: undefined,
      compressedOffset: chunk.offset,
      compressedSize: storedSize(room, length),
      uncompressedOffset: this.uncompressedSize,
      uncompressedSize: length,
      compressed: true,
      encrypted: false,
    })
    this.uncompressedSize += Math.ceil(length / BLOCK) * BLOCK
    this.#ids.set(this.#ids.add(), 0, id)
    chunks.index(id)
    return id
  }

  /** Where the next member with content starts: this one ends before. */
  #next(offset: number): number {
    let low = 0
    let high = this.#offsets.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#offsets[middle] ?? 0) <= offset) low = middle + 1
      else high = middle
    }
    return this.#offsets[low] ?? this.#blobSize
  }
}

/**
 * Of a member only is known that it ends before the next one. Readers take a chunk whose sizes are equal for one that is stored plain; the last byte is behind the content in any case, as it is of the member's trailer.
 */
function storedSize(most: number, length: number): number {
  const size = Math.min(most, mostStored(length))
  return size === length ? size - 1 : size
}

/** More bytes no gzip member of that content has: header 10, trailer 8, and stored blocks with 5 bytes each; and some room, as the original leaves it. */
function mostStored(length: number): number {
  return length + 10 + 8 + 5 + Math.floor(length / 0x4000) * 5 + 128
}

async function write(
  files: FileTree,
  root: NodeId,
  chunks: StargzChunks,
  options: StargzOptions & LayerRun,
  treeSeconds: number,
): Promise<BuiltLayer> {
  const before = performance.now()
  const { chunkSize, prefetch, keepOwners, sink } = options
  const meta = chunks.count === 0 ? undefined : encodeMetaBlob(chunks.records(), chunks.count, FEATURES)
  if (meta !== undefined) await sink(meta.bytes)
  const blobs = meta === undefined ? [] : [blobOf(chunks, meta, options)]
  const kind = { version: 6, compression: 'gzip', digest: 'sha256', source: 'archive' } as const
  const bootstrap = layerBootstrap({ files, root, blobs }, { chunkSize, keepOwners, prefetch, ...kind })
  const { duplicates: duplicateChunks, duplicateBytes } = chunks
  return {
    bootstrap,
    blobMeta: undefined,
    blobId: blobs[0]?.metaBlobId ?? '',
    blobSize: meta?.bytes.length ?? 0,
    blobs,
    counts: {
      storedBytes: 0,
      duplicateChunks,
      duplicateBytes,
      treeSeconds,
      bootstrapSeconds: (performance.now() - before) / 1000,
    },
  }
}

function blobOf(chunks: StargzChunks, meta: MetaBlob, { blobId, blobSize, chunkSize }: StargzOptions): BlobInfo {
  const metaBlobDigest = createHash('sha256').update(meta.bytes).digest()
  return {
    index: 0,
    id: blobId,
    features: FEATURES,
    chunkSize,
    chunkCount: chunks.count,
    compression: 'gzip',
    digest: 'sha256',
    compressedSize: blobSize,
    uncompressedSize: chunks.uncompressedSize,
    prefetchSize: 0,
    metaOffset: 0,
    metaCompressedSize: meta.compressedSize,
    metaUncompressedSize: meta.uncompressedSize,
    metaCompression: meta.compression,
    tocSize: 0,
    tocDigest: undefined,
    metaBlobDigest,
    metaBlobSize: meta.bytes.length,
    metaBlobId: metaBlobDigest.toString('hex'),
  }
}
