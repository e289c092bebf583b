import type { Backend, BlobReader } from '../backend/index.ts'
import {
  BLOB_FEATURES,
  batchMetaFileSize,
  type BlobInfo,
  type BlobLayout,
  ChunkDecoder,
  ChunkInfo,
  META_HEADER_SIZE,
  metaFileOf,
  openBatchLayout,
  openBlobLayout,
} from '../blob/index.ts'
import { digester } from '../codec/index.ts'
import { type Bootstrap, flatView } from '../rafs/index.ts'
import { Artifact } from './artifact.ts'
import { BuilderError } from './errors.ts'
import { type LayerChunk, layerChunks } from './layer-chunks.ts'
import { StoredRuns } from './stored-runs.ts'
import { VerityTree } from './verity-tree.ts'

export interface DiskOptions {
  readonly path: string
  /** Appends a dm-verity hash tree. */
  readonly verity: boolean
  readonly signal: AbortSignal
  /** Bytes of the disk that are done, now and then. */
  readonly onBytes: (bytes: number) => void
}

export interface ExportedDisk {
  /** Bytes. */
  readonly blockSize: number
  readonly blocks: number
  /** Undefined without verity. */
  readonly verity: { readonly hashOffset: number; readonly rootHash: string } | undefined
}

const PIECE_BYTES = 4 * 1024 * 1024

/**
 * Writes an image as one disk that the kernel mounts: the bootstrap, then the plain bytes of every blob at its place; holes stay holes. Each chunk is verified whose digest the image holds; chunks that no file
 * uses have none. The file appears whole or not at all. Throws BuilderError, RafsError, BlobError, BackendError, or the signal's reason.
 */
export async function exportDisk(
  image: Bootstrap,
  bootstrap: Uint8Array,
  backend: Backend,
  options: DiskOptions,
): Promise<ExportedDisk> {
  const view = flatView(bootstrap, image)
  for (const { id, features } of image.blobs) {
    if ((features & BLOB_FEATURES.EXTERNAL) !== 0)
      throw new BuilderError(
        'UNSUPPORTED',
        `the data of blob ${id} is external: exporting it is not supported by this version of nydus-image`,
      )
  }
  const artifact = await Artifact.create(options.path)
  try {
    const disk = new Disk(artifact, options, view.blockSize)
    await disk.write(bootstrap)
    for (const [index, { startBlock, blocks }] of view.devices.entries()) {
      const blob = image.blobs[index]
      if (blob === undefined) break
      const start = startBlock * view.blockSize
      await disk.zerosTo(start)
      await writeBlob(disk, image, blob, backend, { start, end: start + blocks * view.blockSize, options })
    }
    await disk.zerosTo(view.blocks * view.blockSize)
    const verity = await disk.finish()
    options.signal.throwIfAborted()
    await artifact.publish()
    return { blockSize: view.blockSize, blocks: view.blocks, verity }
  } finally {
    await artifact.discard()
  }
}

/** The disk front to back. */
class Disk {
  readonly #artifact: Artifact
  readonly #options: DiskOptions
  readonly #tree: VerityTree | undefined

  constructor(artifact: Artifact, options: DiskOptions, blockSize: number) {
    this.#artifact = artifact
    this.#options = options
    this.#tree = options.verity ? new VerityTree(blockSize) : undefined
  }

  get position(): number {
    return this.#artifact.size
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#options.signal.throwIfAborted()
    this.#tree?.update(bytes)
    await this.#artifact.write(bytes)
    this.#options.onBytes(bytes.length)
  }

  async zerosTo(position: number): Promise<void> {
    const length = position - this.position
    if (length === 0) return
    this.#tree?.zeros(length)
    await this.#artifact.skip(length)
    this.#options.onBytes(length)
  }

  /** The tree begins at the next border of 4096 bytes, which is no part of the data. */
  async finish(): Promise<ExportedDisk['verity']> {
    if (this.#tree === undefined) return undefined
    const { rootHash, pages } = this.#tree.finish()
    const hashOffset = Math.ceil(this.position / 4096) * 4096
    if (pages.length > 0 && hashOffset > this.position) await this.#artifact.skip(hashOffset - this.position)
    for (const page of pages) await this.#artifact.write(page)
    return { hashOffset, rootHash }
  }
}

interface Place {
  /** Bytes of the disk. */
  readonly start: number
  readonly end: number
  readonly options: DiskOptions
}

async function writeBlob(disk: Disk, image: Bootstrap, blob: BlobInfo, backend: Backend, place: Place): Promise<void> {
  if ((blob.features & BLOB_FEATURES.ZRAN) !== 0) {
    const known = image.layout(blob.index)
    for await (const chunk of layerChunks(blob, backend, place.options.signal))
      await putChunk(disk, blob, known, chunk, place)
    return
  }
  const reader = await backend.open(blob.id)
  try {
    if ((blob.features & BLOB_FEATURES.TARFS) !== 0) await copyTar(disk, blob, reader, place)
    else {
      const layout = await ownLayout(blob, reader, backend, place.options.signal)
      await writeChunks(disk, { blob, layout, known: image.layout(blob.index) }, reader, place)
    }
  } finally {
    await reader.close()
  }
}

/** The data of a tarfs image is the tar itself. */
async function copyTar(disk: Disk, blob: BlobInfo, reader: BlobReader, { start, end, options }: Place): Promise<void> {
  const size = await reader.size(options.signal)
  // The last block may be one that the tar does not fill.
  if (size + 512 <= end - start)
    throw new BuilderError(
      'BAD_SOURCE',
      `blob ${blob.id} has ${size} bytes, the image wants ${end - start}; it is truncated`,
    )
  const length = Math.min(size, end - start)
  for (let at = 0; at < length; at += PIECE_BYTES) {
    const bytes = Buffer.allocUnsafe(Math.min(PIECE_BYTES, length - at))
    await reader.read(at, bytes, { signal: options.signal })
    await disk.write(bytes)
  }
}

/** Chunks of a blob: as it tells them itself, and as the image knows them. */
interface BlobChunks {
  readonly blob: BlobInfo
  readonly layout: BlobLayout
  readonly known: BlobLayout
}

async function writeChunks(
  disk: Disk,
  { blob, layout, known }: BlobChunks,
  reader: BlobReader,
  place: Place,
): Promise<void> {
  const source = new StoredRuns(reader, place.options.signal)
  const decoder = new ChunkDecoder(blob.compression, blob.cipher)
  const info = new ChunkInfo()
  for (let index = 0; index < layout.chunkCount; index += 1) {
    layout.chunk(index, info)
    const reading = source.read(info.compressedOffset, info.compressedSize)
    const stored = reading instanceof Promise ? await reading : reading
    const plain = Buffer.allocUnsafe(info.uncompressedSize)
    decoder.decode(stored, info.compressedOffset, info, plain)
    await putChunk(disk, blob, known, { index, uncompressedOffset: info.uncompressedOffset, plain }, place)
  }
}

/** Writes a chunk to its place, behind all that was written before. */
async function putChunk(
  disk: Disk,
  blob: BlobInfo,
  known: BlobLayout,
  { index, uncompressedOffset, plain }: LayerChunk,
  { start, end }: Place,
): Promise<void> {
  const at = start + uncompressedOffset
  if (at < disk.position || at + plain.length > end)
    throw new BuilderError(
      'BAD_SOURCE',
      `chunk ${index} of blob ${blob.id} lies outside its place; the blob is damaged or crafted`,
    )
  if (known.has(index)) {
    const wanted = new ChunkInfo()
    known.chunk(index, wanted)
    // Chunks of one digest and different sizes share a record, which is then another chunk's.
    if (wanted.uncompressedOffset === uncompressedOffset) verify(blob, index, plain, wanted.digest)
  }
  await disk.zerosTo(at)
  await disk.write(plain)
}

function verify(blob: BlobInfo, index: number, plain: Uint8Array, wanted: Uint8Array): void {
  const found = Buffer.alloc(32)
  digester(blob.digest).digest(plain, found)
  if (found.equals(wanted)) return
  throw new BuilderError(
    'BAD_SOURCE',
    `chunk ${index} of blob ${blob.id}: its ${blob.digest} digest is ${found.toString('hex')}, the image wants ${Buffer.from(wanted).toString('hex')}; get the blob anew`,
  )
}

/** All chunks of a blob, also those that no file of the image uses: as the blob itself tells them. */
async function ownLayout(blob: BlobInfo, data: BlobReader, backend: Backend, signal: AbortSignal): Promise<BlobLayout> {
  batchMetaFileSize(blob) // more than chunks and contexts can have is crafted
  if ((blob.features & BLOB_FEATURES.SEPARATE) === 0) return await readLayout(blob, data, signal)
  // Of a layer that is referred to, a blob of its own tells where chunks are.
  const apart = await backend.open(blob.metaBlobId ?? blob.id)
  try {
    return await readLayout(blob, apart, signal)
  } finally {
    await apart.close()
  }
}

async function readLayout(blob: BlobInfo, reader: BlobReader, signal: AbortSignal): Promise<BlobLayout> {
  const length = blob.metaCompressedSize + META_HEADER_SIZE
  const size = await reader.size(signal)
  if (blob.metaOffset + length > size)
    throw new BuilderError(
      'BAD_SOURCE',
      `blob ${blob.id} ends at byte ${size}, before its list of chunks; it is truncated`,
    )
  const stored = Buffer.allocUnsafe(length)
  await reader.read(blob.metaOffset, stored, { signal })
  const metaFile = metaFileOf(stored, blob)
  // What tells of a plain layer or an eStargz one has the form that other blobs have.
  const own = { ...blob, features: blob.features & ~BLOB_FEATURES.SEPARATE }
  const records = openBlobLayout(metaFile, own, new Uint8Array(blob.chunkCount * 32))
  return (blob.features & BLOB_FEATURES.BATCH) === 0 ? records : openBatchLayout(records, metaFile, blob)
}
