import { BLOB_FEATURES, type BlobInfo, MAX_BLOB_BYTES, MAX_BLOB_CHUNKS } from '../blob/index.ts'
import { type ChunkList, type ChunkStore, FileTree, type NodeId, type RafsChunk } from '../rafs/index.ts'
import { TarError } from '../tar/index.ts'
import type { BuiltLayer } from './built-layer.ts'
import { BuilderError, coded } from './errors.ts'
import type { LayerOptions, LayerRun } from './layer-options.ts'
import { layerBootstrap } from './layer-bootstrap.ts'
import { detectCompression } from '../codec/index.ts'
import { type ArchivedContent, readPlainTarLayer } from './sources/tar.ts'
import { WholeTar } from './sources/whole-tar.ts'

/** What of a layer's options an image over a plain tar has a use for. */
export type TarfsOptions = Pick<LayerOptions, 'chunkSize' | 'keepOwners' | 'blobId' | 'prefetch'>

const BLOCK = 512

/**
 * Builds a bootstrap over a plain tar, which is the image's blob as it is: files lie in it at multiples of 512 bytes, the size of the image's blocks. The blob's id is the tar's SHA-256 when
 * none was given; chunks have no digests. Nothing but the tree is kept in memory, and nothing else is written. Throws BuilderError: 'BAD_SOURCE' for a tar that is compressed or damaged,
 * 'UNSUPPORTED' for sparse files, whose holes are not in it.
 */
export async function buildTarfsLayer(
  stream: AsyncIterable<Uint8Array>,
  options: TarfsOptions & Pick<LayerRun, 'signal' | 'onLost'>,
): Promise<BuiltLayer> {
  const started = performance.now()
  const facts = new TarFacts()
  const tar = new WholeTar(stream, options.blobId === undefined, (bytes, end) => facts.see(bytes, end))
  const files = new FileTree()
  const chunks = new TarChunks(files.chunks, options.chunkSize)
  try {
    const addContent = (content: ArchivedContent): ChunkList => chunks.add(content)
    const root = await readPlainTarLayer(tar.archive, { ...options, files, addContent })
    chunks.finish()
    await tar.finish()
    const treeSeconds = (performance.now() - started) / 1000
    return write(files, root, tarBlob(tar, chunks.count, options), options, treeSeconds)
  } catch (error) {
    options.signal.throwIfAborted()
    throw facts.explained(coded(error))
  } finally {
    await tar.end()
  }
}

/** What the archive says of itself on its way. */
class TarFacts {
  #head = Buffer.alloc(0)

  see(bytes: Uint8Array, end: number): void {
    if (end > MAX_BLOB_BYTES)
      throw new BuilderError('TOO_LARGE', `the tar has more than the ${MAX_BLOB_BYTES} bytes that RAFS v6 can name`)
    if (this.#head.length < 4) this.#head = Buffer.concat([this.#head, bytes.subarray(0, 4)])
  }

  /** A compressed archive is taken for a damaged one by the parser. */
  explained(error: unknown): unknown {
    const compression = detectCompression(this.#head)
    if (compression === 'none' || !(error instanceof BuilderError && error.cause instanceof TarError)) return error
    return new BuilderError(
      'BAD_SOURCE',
      `the layer is compressed with ${compression}, and its files cannot be read in place; decompress it first`,
      { cause: error },
    )
  }
}

/** Chunks of files where they lie. They are listed once the file was passed over: a few crafted bytes can announce a file that would take all memory to describe. */
class TarChunks {
  count = 0
  readonly #chunks: ChunkStore
  readonly #chunkSize: number
  #open: { readonly content: ArchivedContent; readonly size: number; readonly list: ChunkList } | undefined

  constructor(chunks: ChunkStore, chunkSize: number) {
    this.#chunks = chunks
    this.#chunkSize = chunkSize
  }

  add(content: ArchivedContent): ChunkList {
    this.finish()
    if (content.holes !== undefined)
      throw new BuilderError(
        'UNSUPPORTED',
        `${content.name} is a sparse file, whose holes are not in the tar; build the layer with another type, such as tar-rafs`,
      )
    const count = Math.min(Math.ceil(content.size / this.#chunkSize), MAX_BLOB_CHUNKS - this.count)
    this.#open = { content, size: content.size, list: this.#chunks.addList(count) }
    return this.#open.list
  }

  finish(): void {
    if (this.#open === undefined) return
    const { content, size, list } = this.#open
    this.#open = undefined
    if (list.count * this.#chunkSize < size)
      throw new BuilderError('TOO_LARGE', `the files have more than ${MAX_BLOB_CHUNKS} chunks; use a larger chunk size`)
    for (let at = 0; at < list.count; at += 1) {
      const offset = at * this.#chunkSize
      const place = { at: content.archivePosition + offset, size: Math.min(this.#chunkSize, size - offset) }
      this.#chunks.setUse(list.start + at, this.#chunks.add(chunkAt(place, this.count++)))
    }
  }
}

const NO_DIGEST = new Uint8Array(32)

function chunkAt({ at, size }: { readonly at: number; readonly size: number }, index: number): RafsChunk {
  return {
    blobIndex: 0,
    index,
    digest: NO_DIGEST,
    crc32c: undefined,
    compressedOffset: at,
    compressedSize: size,
    uncompressedOffset: at,
    uncompressedSize: size,
    compressed: false,
    encrypted: false,
  }
}

/** A tar without content is no blob. */
function tarBlob(tar: WholeTar, chunkCount: number, options: TarfsOptions): readonly BlobInfo[] {
  if (chunkCount === 0) return []
  return [
    {
      index: 0,
      id: options.blobId ?? tar.id,
      features: BLOB_FEATURES.TARFS | BLOB_FEATURES.CAP_TAR_TOC,
      chunkSize: options.chunkSize,
      chunkCount,
      compression: 'none',
      digest: 'sha256',
      compressedSize: tar.size,
      uncompressedSize: Math.ceil(tar.size / BLOCK) * BLOCK,
      prefetchSize: 0,
      metaOffset: 0,
      metaCompressedSize: 0,
      metaUncompressedSize: 0,
      metaCompression: 'lz4_block', // as the original leaves it
      tocSize: 0,
      tocDigest: undefined,
    },
  ]
}

function write(
  files: FileTree,
  root: NodeId,
  blobs: readonly BlobInfo[],
  { chunkSize, keepOwners, prefetch }: TarfsOptions,
  treeSeconds: number,
): BuiltLayer {
  const before = performance.now()
  const kind = { version: 6, compression: 'none', digest: 'sha256', source: 'archive', isTarfs: true } as const
  const bootstrap = layerBootstrap({ files, root, blobs }, { chunkSize, keepOwners, prefetch, ...kind })
  return {
    bootstrap,
    blobMeta: undefined,
    blobId: blobs[0]?.id ?? '',
    blobSize: blobs[0]?.compressedSize ?? 0,
    blobs,
    counts: {
      storedBytes: 0,
      duplicateChunks: 0,
      duplicateBytes: 0,
      treeSeconds,
      bootstrapSeconds: (performance.now() - before) / 1000,
    },
  }
}
