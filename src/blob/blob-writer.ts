/**
 * Writes a data blob front to back: chunks, then all that describes them. Source: docs/formats/blob.md, "Layouts".
 */
import { createHash } from 'node:crypto'
import { type CompressionName, compressor, type DigestName } from '../codec/index.ts'
import { encodeBatchContext } from './batch.ts'
import { BLOB_FEATURES, type BlobInfo } from './blob-info.ts'
import { encodeMetaFile, encodeMetaHeader, META_HEADER_SIZE, metaFileOf } from './blob-meta.ts'
import {
  type DescribedChunk,
  encodeInfoV1,
  encodeInfoV2,
  encodeZranInfo,
  INFO_V1_SIZE,
  INFO_V2_SIZE,
  type PlaceInBatch,
} from './chunk-infos.ts'
import { type BlobCipher, encrypt } from './encryption.ts'
import { BlobError } from './errors.ts'
import { GrowingBytes } from './growing-bytes.ts'
import { type BlobSink, HashedSink } from './hashed-sink.ts'
import { MAX_BLOB_CHUNKS } from './limits.ts'
import { packInfos } from './packed-infos.ts'
import { encodeTarHeader } from './tar-header.ts'
import { encodeToc, PARTS, type TocEntry, tocDigest } from './toc.ts'
import type { StoredPlace, ZranPlace, ZranSlicer } from './zran-slicer.ts'

const ALIGNMENT = 4096

/** This blob, before it is finished. */
const OWN = { index: 0, id: 'that is written', compressedSize: 0, tocSize: 0, tocDigest: undefined }

export interface BlobWriterOptions {
  readonly chunkSize: number
  readonly compression: CompressionName
  readonly digest: DigestName
  /** The bootstrap goes into the blob. */
  readonly inlineBootstrap: boolean
  /** A table of contents ends the blob, and chunk digests are in it. */
  readonly toc: boolean
  /** Of the image: v5 describes chunks in the bootstrap only, so the blob is nothing but their bytes (and an inlined bootstrap). */
  readonly rafsVersion: 5 | 6
  /** Chunks start at multiples of 4096 in the uncompressed address space. Always so in v6. */
  readonly alignedChunks: boolean
  /** Chunks may be stored in batches; v6 only. */
  readonly batches: boolean
  /** What chunks and batches were encrypted with, and their infos are to be; v6 only. */
  readonly cipher: BlobCipher | undefined
  /** Bytes that will lie before the blob in the file that readers get: all places in it are counted from there. */
  readonly offset: number
  /** The chunks stay where they are, in a gzip file or plain in another, and the blob only tells where; v6 only, and `refer` is used instead of `append`. */
  readonly reference?: ZranSlicer | 'plain' | undefined
  readonly sink: BlobSink
}

/** One chunk to append: what it is, and where it landed. */
export interface AppendedChunk extends Pick<DescribedChunk, 'compressed' | 'encrypted' | 'crc32c'> {
  readonly digest: Uint8Array
  readonly uncompressedSize: number
  index: number
  compressedOffset: number
  compressedSize: number
  uncompressedOffset: number
}

/** What a bootstrap says of a blob besides what its writer knows. */
export type OwnBlob = Pick<BlobInfo, 'id' | 'compressedSize' | 'tocSize' | 'tocDigest'> &
  Partial<Pick<BlobInfo, 'metaBlobDigest' | 'metaBlobSize'>>

/** What a finished blob is. */
export interface FinishedBlob {
  /** SHA-256 of the bytes but for those of the digest array: the name that the original's builder gives. */
  readonly id: string
  /** All bytes of the blob. */
  readonly size: number
  readonly tocSize: number
  readonly tocDigest: Uint8Array | undefined
}

/**
 * Order of calls: `append` for each chunk, or `addToBatch` for some in a row and `appendBatch`, or `refer`; `finishData` once; then, for an inlined bootstrap, `addBootstrap`; `finish` last. One call at a time. Nothing is kept of the
 * chunks but their infos and digests, up to 56 bytes each. The sink's errors pass through; after one the blob is to be thrown away.
 */
export class BlobWriter {
  readonly #options: BlobWriterOptions
  readonly #out: HashedSink
  readonly #infos = new GrowingBytes()
  readonly #digests = new GrowingBytes()
  readonly #contexts = new GrowingBytes()
  #batchCount = 0
  /** Plain bytes of the batch that is being filled. */
  #batchSize = 0
  readonly #toc: TocEntry[] = []
  #chunkCount = 0
  #uncompressedSize = 0
  #meta:
    | {
        /** Infos and header as they are stored, a fraction of what they are; undefined of references, whose contexts are too large to be kept. */
        readonly stored: Uint8Array | undefined
        readonly header: Uint8Array
        readonly offset: number
        readonly compressedSize: number
        readonly uncompressedSize: number
        readonly compression: CompressionName
      }
    | undefined

  constructor(options: BlobWriterOptions) {
    this.#options = options
    this.#out = new HashedSink(options.sink)
  }

  /** Bytes so far. */
  get size(): number {
    return this.#out.size
  }

  /** Where the next byte goes. */
  get #at(): number {
    return this.#options.offset + this.#out.size
  }

  get chunkCount(): number {
    return this.#chunkCount
  }

  /** Length of the uncompressed address space so far. */
  get uncompressedSize(): number {
    return this.#uncompressedSize
  }

  /** Appends a chunk as it is stored and fills in its place. Throws 'TOO_LARGE' beyond the format's limits. */
  append(chunk: AppendedChunk, stored: Uint8Array): Promise<void> | void {
    this.#place(chunk, stored)
    return this.#out.write(stored)
  }

  /** As {@link append}, but `stored` is valid until {@link takeLent} settles. */
  lend(chunk: AppendedChunk, stored: Uint8Array): Promise<void> | void {
    this.#place(chunk, stored)
    return this.#out.lend(stored)
  }

  /** Nothing that was lent is needed any more. */
  takeLent(): Promise<void> | void {
    return this.#out.takeLent()
  }

  #place(chunk: AppendedChunk, stored: Uint8Array): void {
    chunk.compressedOffset = this.#at
    chunk.compressedSize = stored.length
    this.#describe(chunk, undefined)
  }

  /** Takes a chunk as the next part of the batch that `appendBatch` will append. Bootstraps do not tell where batches are: its stored place becomes 0. */
  addToBatch(chunk: AppendedChunk): void {
    chunk.compressedOffset = this.#at
    this.#describe(chunk, { batch: this.#batchCount, offset: this.#batchSize })
    chunk.compressedOffset = 0
    chunk.compressedSize = 0
    this.#batchSize += chunk.uncompressedSize
  }

  /** Appends a batch as it is stored; `plainSize` are its plain bytes, which may be more than its chunks have. */
  appendBatch(stored: Uint8Array, plainSize: number): Promise<void> | void {
    const context = encodeBatchContext(stored.length, plainSize)
    this.#contexts.append(context)
    this.#batchCount += 1
    this.#batchSize = 0
    return this.#out.write(stored)
  }

  /** Takes a chunk that stays where it is. Throws 'TOO_LARGE' beyond the format's limits. */
  refer(chunk: AppendedChunk, place: ZranPlace | StoredPlace): void {
    chunk.compressedOffset = place.compressedOffset
    chunk.compressedSize = place.compressedSize
    this.#describe(chunk, 'context' in place ? place : undefined)
  }

  #describe(chunk: AppendedChunk, place: PlaceInBatch | ZranPlace | undefined): void {
    if (this.#chunkCount >= MAX_BLOB_CHUNKS)
      throw new BlobError(
        'TOO_LARGE',
        `a blob holds up to ${MAX_BLOB_CHUNKS} chunks; use a larger chunk size or split the layer`,
      )
    chunk.index = this.#chunkCount
    chunk.uncompressedOffset = this.#uncompressedSize
    if (this.#options.rafsVersion === 6) {
      const at = this.#infos.extend(this.#isV2 ? INFO_V2_SIZE : INFO_V1_SIZE)
      const { view } = this.#infos
      if (place !== undefined && 'context' in place) encodeZranInfo(chunk, place, view, at)
      else if (this.#isV2) encodeInfoV2(chunk, place, view, at)
      else encodeInfoV1(chunk, view, at)
      if (this.#options.toc) this.#digests.append(chunk.digest)
    }
    this.#chunkCount += 1
    this.#uncompressedSize = this.#aligned(chunk.uncompressedOffset + chunk.uncompressedSize)
  }

  get #isV2(): boolean {
    const { batches, cipher, reference } = this.#options
    return batches || cipher !== undefined || reference !== undefined
  }

  #aligned(end: number): number {
    const { alignedChunks, rafsVersion } = this.#options
    return alignedChunks || rafsVersion === 6 ? Math.ceil(end / ALIGNMENT) * ALIGNMENT : end
  }

  /** Ends the chunks: writes what describes them. Without chunks there is nothing to describe. */
  async finishData(): Promise<void> {
    if (this.#chunkCount === 0) return
    const { reference } = this.#options
    if (reference === 'plain') await this.#writeMeta()
    else if (reference !== undefined) await this.#writeReferenceMeta(reference)
    else await this.#describeData()
    if (this.#options.toc && this.#options.rafsVersion === 6) await this.#writeDigests()
  }

  async #describeData(): Promise<void> {
    const dataSize = this.#out.size
    if (this.#hasHeaders) await this.#writeHeader(PARTS.data, dataSize)
    if (this.#options.toc) await this.#describeInToc(dataSize)
    if (this.#options.rafsVersion === 6) await this.#writeMeta()
  }

  async #describeInToc(dataSize: number): Promise<void> {
    this.#toc.push({
      name: PARTS.data,
      compression: 'none',
      // Covers the header, but not its own uncompressed form: readers never check it, digests of the table do.
      digest: await this.#out.digest(),
      compressedOffset: this.#options.offset,
      compressedSize: dataSize,
      uncompressedSize: this.#uncompressedSize,
    })
  }

  /** The bootstrap, compressed where a table of contents can say so. */
  async addBootstrap(bytes: Uint8Array): Promise<void> {
    const { stored, compression } = this.#options.toc
      ? compressed(bytes, 'zstd')
      : { stored: bytes, compression: 'none' as const }
    this.#addEntry(PARTS.bootstrap, bytes, stored.length, compression)
    await this.#out.write(stored)
    await this.#writeHeader(PARTS.bootstrap, stored.length)
  }

  /** Ends the blob; all of it is in the sink afterwards. */
  async finish(): Promise<FinishedBlob> {
    let toc: Uint8Array | undefined
    if (this.#options.toc && this.#toc.length > 0) {
      toc = encodeToc(this.#toc)
      await this.#out.write(toc)
    }
    const digest = await this.#out.digest()
    return {
      id: digest.toString('hex'),
      size: this.#out.size,
      tocSize: toc?.length ?? 0,
      tocDigest: toc === undefined ? undefined : tocDigest(toc),
    }
  }

  /** How a bootstrap names this blob; after `finishData`, with the size that the bootstrap is to tell. */
  info(more: OwnBlob & Pick<BlobInfo, 'index'>): BlobInfo {
    const { chunkSize, compression, digest, cipher } = this.#options
    return {
      ...more,
      ...(cipher === undefined ? {} : { cipher }),
      features: this.#features,
      chunkSize,
      chunkCount: this.#chunkCount,
      compression,
      digest,
      uncompressedSize: this.#uncompressedSize,
      prefetchSize: 0,
      metaOffset: this.#meta?.offset ?? 0,
      metaCompressedSize: this.#meta?.compressedSize ?? 0,
      metaUncompressedSize: this.#meta?.uncompressedSize ?? 0,
      metaCompression: this.#meta?.compression ?? 'none',
    }
  }

  /** The compression context in the form of the cache file; undefined for a blob without chunks, and for a reference, whose contexts are large. After `finishData`. */
  metaFile(): Uint8Array | undefined {
    return this.#meta?.stored === undefined ? undefined : metaFileOf(this.#meta.stored, this.info(OWN))
  }

  /** The same of any blob with chunks, piece by piece; each valid until the next one. */
  *metaPieces(): Generator<Uint8Array> {
    const { reference } = this.#options
    if (this.#meta === undefined) return
    const { stored, header, uncompressedSize } = this.#meta
    if (stored !== undefined || reference === undefined || reference === 'plain') {
      yield this.metaFile() ?? header
      return
    }
    yield this.#infos.bytes
    yield* reference.encode()
    yield new Uint8Array((ALIGNMENT - (uncompressedSize % ALIGNMENT)) % ALIGNMENT)
    yield header
  }

  get #hasHeaders(): boolean {
    return this.#options.inlineBootstrap || this.#options.toc
  }

  get #features(): number {
    const { inlineBootstrap, toc, rafsVersion, batches, cipher, reference } = this.#options
    let features: number = BLOB_FEATURES.CAP_TAR_TOC
    if (reference !== undefined) features |= BLOB_FEATURES.SEPARATE
    if (reference !== undefined && reference !== 'plain') features |= BLOB_FEATURES.ZRAN
    // v5 never says so, whether it is or not.
    if (rafsVersion === 6) features |= BLOB_FEATURES.ALIGNED
    if (inlineBootstrap) features |= BLOB_FEATURES.INLINED_FS_META | BLOB_FEATURES.HAS_TAR_HEADER
    if (toc) features |= BLOB_FEATURES.HAS_TOC | BLOB_FEATURES.HAS_TAR_HEADER
    if (this.#isV2) features |= BLOB_FEATURES.CHUNK_INFO_V2
    if (batches) features |= BLOB_FEATURES.BATCH
    if (cipher !== undefined) features |= BLOB_FEATURES.ENCRYPTED
    if (toc && this.#chunkCount > 0) features |= BLOB_FEATURES.INLINED_CHUNK_DIGEST
    return features
  }

  async #writeMeta(): Promise<void> {
    const { batches, cipher, reference } = this.#options
    const [infos, offset] = [this.#plainInfos(), this.#at]
    const wanted = reference === undefined ? this.#options.compression : 'zstd'
    const { stored: packed, compression } = compressed(infos, wanted)
    const stored = cipher === undefined ? packed : encrypt(packed, cipher)
    const compressedSize = stored.length
    const [at, size] = [this.#infos.bytes.length, this.#contexts.bytes.length]
    const header = encodeMetaHeader({
      features: this.#features,
      compression,
      entries: this.#chunkCount,
      offset,
      compressedSize,
      uncompressedSize: infos.length,
      contexts: batches ? { at, size, count: this.#batchCount } : undefined,
    })
    const storedHeader = cipher === undefined ? header : encrypt(header, cipher)
    const whole = Buffer.concat([stored, storedHeader])
    this.#meta = { stored: whole, header, offset, compressedSize, uncompressedSize: infos.length, compression }
    this.#compareMeta(whole, infos, header)
    this.#addEntry(PARTS.meta, infos, compressedSize, compression)
    await this.#out.write(stored)
    await this.#writeMetaHeader(header, storedHeader, compressedSize)
    // The bootstrap that is written next wants the memory.
    this.#infos.clear()
  }

  async #writeMetaHeader(header: Uint8Array, stored: Uint8Array, infosSize: number): Promise<void> {
    this.#addEntry(PARTS.metaHeader, header, header.length, 'none')
    await this.#out.write(stored)
    if (this.#hasHeaders) await this.#writeHeader(PARTS.meta, infosSize + META_HEADER_SIZE)
  }

  /** Infos and the contexts behind them: piece by piece, since each context has 32 KiB of its own. */
  async #writeReferenceMeta(slicer: ZranSlicer): Promise<void> {
    const infos = this.#infos.bytes
    const [offset, size] = [this.#out.size, slicer.byteLength]
    const plain = function* (): Generator<Uint8Array> {
      yield infos
      yield* slicer.encode()
    }
    const uncompressedSize = infos.length + size
    const { compression, compressedSize, digest, pieces, close } = await packInfos(plain, uncompressedSize)
    const contexts = { at: infos.length, size, count: slicer.contextCount }
    const what = { compression, offset, compressedSize, uncompressedSize }
    const header = encodeMetaHeader({ ...what, features: this.#features, entries: this.#chunkCount, contexts })
    this.#meta = { ...what, stored: undefined, header }
    const name = PARTS.meta
    this.#toc.push({ name, compression, digest, compressedOffset: offset, compressedSize, uncompressedSize })
    try {
      for (const piece of pieces()) await this.#out.write(piece)
    } finally {
      close()
    }
    await this.#writeMetaHeader(header, header, compressedSize)
  }

  #plainInfos(): Uint8Array {
    return this.#options.batches ? Buffer.concat([this.#infos.bytes, this.#contexts.bytes]) : this.#infos.bytes
  }

  /** Reads back what is about to be written: a context that does not fit makes every chunk unreadable. */
  #compareMeta(stored: Uint8Array, infos: Uint8Array, header: Uint8Array): void {
    if (
      Buffer.compare(
        metaFileOf(stored, this.info({ ...OWN, compressedSize: this.#out.size })),
        encodeMetaFile(infos, header),
      ) === 0
    )
      return
    throw new BlobError(
      'BAD_META',
      'the compression context does not read back as it was meant; nothing was published, please report this',
    )
  }

  async #writeDigests(): Promise<void> {
    const digests = this.#digests.bytes
    this.#addEntry(PARTS.digests, digests, digests.length, 'none')
    await this.#out.writeApart(digests) // not part of the blob's digest
    await this.#writeHeader(PARTS.digests, digests.length)
  }

  #addEntry(name: string, plain: Uint8Array, storedSize: number, compression: CompressionName): void {
    if (!this.#options.toc) return
    const digest = createHash('sha256').update(plain).digest()
    this.#toc.push({
      name,
      compression,
      digest,
      compressedOffset: this.#at,
      compressedSize: storedSize,
      uncompressedSize: plain.length,
    })
  }

  async #writeHeader(name: string, size: number): Promise<void> {
    await this.#out.write(encodeTarHeader(name, size))
  }
}

function compressed(plain: Uint8Array, wanted: CompressionName): { stored: Uint8Array; compression: CompressionName } {
  const into = new Uint8Array(plain.length)
  const size = compressor(wanted).compress(plain, into)
  return size < 0 ? { stored: plain, compression: 'none' } : { stored: into.subarray(0, size), compression: wanted }
}
