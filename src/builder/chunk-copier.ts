import type { Backend, BlobReader } from '../backend/index.ts'
import {
  BLOB_FEATURES,
  type BlobCipher,
  BlobError,
  type BlobInfo,
  type BlobWriter,
  ChunkDecoder,
  ChunkInfo,
} from '../blob/index.ts'
import { CodecError, type CompressionName, compressor, digester, type DigestName } from '../codec/index.ts'
import { type Bootstrap, chunkFrom, ChunkSpan, type RafsChunk } from '../rafs/index.ts'
import { storedForm } from './chunk-work.ts'
import { BuilderError } from './errors.ts'
import { toKey } from './image-path.ts'
import type { ImageData } from './image-data.ts'

/** Chunks that are stored near each other are read in one go of up to this, gaps of up to the second included. */
const RUN_BYTES = 4 * 1024 * 1024
const GAP_BYTES = 128 * 1024
/** Blobs whose stored bytes are no chunks of their own that could be copied. */
const INDIRECT =
  BLOB_FEATURES.BATCH | BLOB_FEATURES.ZRAN | BLOB_FEATURES.SEPARATE | BLOB_FEATURES.TARFS | BLOB_FEATURES.EXTERNAL

/** An image whose chunks are copied into other blobs. */
export interface CopiedImage {
  readonly image: Bootstrap
  readonly backend: Backend
  /** For chunks that are stored in another way than by themselves. */
  readonly data: ImageData
  readonly signal: AbortSignal
  /** Told when plain bytes were copied. */
  readonly onBytes: (bytes: number) => void
}

/** How the blob that is written stores its chunks. */
export interface CopyTarget {
  readonly writer: BlobWriter
  /** Its place in the table of the image that is written. */
  readonly blobIndex: number
  readonly compression: CompressionName
  readonly digest: DigestName
  readonly cipher: BlobCipher | undefined
}

/** A chunk's content and digest; and its bytes as they are stored, where they may stay so. Valid until the next one is taken. */
interface Taken {
  readonly plain: Uint8Array
  readonly digest: Uint8Array
  readonly stored: Uint8Array | undefined
}

/**
 * Copies chunks of an image into a blob that is written: as they are stored where the new blob stores them alike, else decoded and stored anew. Each one's digest is compared on the way. Memory is that of one run and one chunk.
 * Throws BuilderError 'BAD_SOURCE' for a blob that is missing, cut or damaged.
 */
export class ChunkCopier {
  readonly #from: CopiedImage
  readonly #readers = new Map<number, BlobReader>()
  readonly #decoders = new Map<number, ChunkDecoder>()
  readonly #info = new ChunkInfo()
  readonly #span = new ChunkSpan()
  /** The chunk that is being copied. */
  readonly #plain: Uint8Array
  #run: { readonly blobIndex: number; readonly start: number; readonly bytes: Uint8Array } | undefined

  constructor(from: CopiedImage) {
    this.#from = from
    this.#plain = new Uint8Array(from.image.chunkSize)
  }

  /**
   * Appends the chunks in their order; gives them as the new image names them. One that several blobs have is stored once: v6 has a single record for all chunks of a blob that have one digest, and what has none cannot be read.
   */
  async copy(chunks: readonly RafsChunk[], target: CopyTarget): Promise<RafsChunk[]> {
    const copied: RafsChunk[] = []
    const stored = new Map<string, RafsChunk>()
    for (const [at, chunk] of chunks.entries()) {
      this.#from.signal.throwIfAborted()
      const blob = this.#blob(chunk.blobIndex)
      const taken = await this.#take(chunks, at, blob, chunk, target)
      const key = toKey(taken.digest)
      const known = stored.get(key) ?? (await append(chunk, taken, target))
      stored.set(key, known)
      copied.push(known)
      this.#from.onBytes(chunk.uncompressedSize)
    }
    return copied
  }

  /** Closes what was opened. */
  async close(): Promise<void> {
    await Promise.all([...this.#readers.values()].map((reader) => reader.close()))
    this.#readers.clear()
  }

  #blob(index: number): BlobInfo {
    const blob = this.#from.image.blobs[index]
    if (blob === undefined)
      throw new BuilderError('BAD_LAYER', `a chunk names blob ${index}, which the image does not have`)
    return blob
  }

  /** A chunk's content, which was compared; and as it is stored, where it may stay that way. What fails here is the source. */
  async #take(
    chunks: readonly RafsChunk[],
    at: number,
    blob: BlobInfo,
    chunk: RafsChunk,
    target: CopyTarget,
  ): Promise<Taken> {
    try {
      const stored = isAlike(blob, target) ? await this.#read(chunks, at, chunk) : undefined
      const plain = stored === undefined ? await this.#readPlain(chunk) : this.#decode(blob, chunk, stored)
      return { plain, stored, digest: this.#digestFor(blob, chunk, plain, target) }
    } catch (error) {
      this.#from.signal.throwIfAborted()
      throw damaged(error, blob, chunk)
    }
  }

  #decode(blob: BlobInfo, chunk: RafsChunk, stored: Uint8Array): Uint8Array {
    const plain = this.#plain.subarray(0, chunk.uncompressedSize)
    const decoder = this.#decoders.get(blob.index) ?? new ChunkDecoder(blob.compression, blob.cipher)
    this.#decoders.set(blob.index, decoder)
    this.#from.image.layout(blob.index).chunk(chunk.index, this.#info)
    decoder.decode(stored, chunk.compressedOffset, this.#info, plain)
    return plain
  }

  /** The chunk's digest, which was compared; where the new blob has another kind, that. */
  #digestFor(blob: BlobInfo, chunk: RafsChunk, plain: Uint8Array, target: CopyTarget): Uint8Array {
    const found = new Uint8Array(32)
    digester(blob.digest).digest(plain, found)
    if (Buffer.compare(found, chunk.digest) !== 0)
      throw new BlobError(
        'BAD_DIGEST',
        `its ${blob.digest} digest is ${Buffer.from(found).toString('hex')}, the image says ${Buffer.from(chunk.digest).toString('hex')}`,
      )
    if (blob.digest !== target.digest) digester(target.digest).digest(plain, found)
    return found
  }

  async #readPlain(chunk: RafsChunk): Promise<Uint8Array> {
    const span = this.#span
    span.blobIndex = chunk.blobIndex
    span.chunkIndex = chunk.index
    span.chunkOffset = chunk.uncompressedOffset
    span.offsetInChunk = 0
    span.length = chunk.uncompressedSize
    const plain = this.#plain.subarray(0, chunk.uncompressedSize)
    await this.#from.data.read([span], 1, plain, this.#from.signal)
    return plain
  }

  /** The stored bytes of a chunk, out of a run that takes in those after it; valid until the next call. */
  async #read(chunks: readonly RafsChunk[], at: number, chunk: RafsChunk): Promise<Uint8Array> {
    const { blobIndex, compressedOffset: start, compressedSize: length } = chunk
    const run = this.#run
    if (
      run === undefined ||
      run.blobIndex !== blobIndex ||
      start < run.start ||
      start + length > run.start + run.bytes.length
    ) {
      const bytes = new Uint8Array(runEnd(chunks, at) - start)
      const reader = this.#readers.get(blobIndex) ?? (await this.#from.backend.open(this.#blob(blobIndex).id))
      this.#readers.set(blobIndex, reader)
      await reader.read(start, bytes, { signal: this.#from.signal })
      this.#run = { blobIndex, start, bytes }
    }
    const from = start - (this.#run?.start ?? 0)
    return this.#run?.bytes.subarray(from, from + length) ?? new Uint8Array(0)
  }
}

/** Where the run ends that begins with a chunk. */
function runEnd(chunks: readonly RafsChunk[], at: number): number {
  const first = chunks[at]
  if (first === undefined) return 0
  let end = first.compressedOffset + first.compressedSize
  for (const next of chunks.slice(at + 1, at + 4096)) {
    const nextEnd = next.compressedOffset + next.compressedSize
    if (next.blobIndex !== first.blobIndex || next.compressedOffset < end || next.compressedOffset > end + GAP_BYTES)
      break
    if (nextEnd > first.compressedOffset + RUN_BYTES) break
    end = nextEnd
  }
  return end
}

/** True when a chunk may go from one blob to the other as it is stored. */
function isAlike(blob: BlobInfo, target: CopyTarget): boolean {
  if ((blob.features & INDIRECT) !== 0 || blob.compression !== target.compression) return false
  if (blob.cipher === undefined || target.cipher === undefined) return blob.cipher === target.cipher
  return (
    Buffer.compare(blob.cipher.key, target.cipher.key) === 0 && Buffer.compare(blob.cipher.iv, target.cipher.iv) === 0
  )
}

/** As the builder stores chunks. */
function encoded(plain: Uint8Array, { compression, cipher }: CopyTarget): StoredForm {
  return {
    ...storedForm(plain, new Uint8Array(plain.length), compressor(compression), cipher),
    encrypted: cipher !== undefined,
  }
}

type StoredForm = Pick<RafsChunk, 'compressed' | 'encrypted'> & { readonly stored: Uint8Array }

async function append(of: RafsChunk, taken: Taken, target: CopyTarget): Promise<RafsChunk> {
  const { writer, blobIndex } = target
  const { stored, ...form } = taken.stored === undefined ? encoded(taken.plain, target) : { stored: taken.stored }
  const place = { index: 0, compressedOffset: 0, compressedSize: 0, uncompressedOffset: 0 }
  const appended = { ...chunkFrom(of, blobIndex), ...form, ...place, digest: taken.digest }
  await writer.append(appended, stored)
  return appended
}

function damaged(error: unknown, blob: BlobInfo, chunk: RafsChunk): unknown {
  if (error instanceof BuilderError) return error
  const isCode = error instanceof BlobError || error instanceof CodecError
  const what = isCode ? `chunk ${chunk.index} of blob ${blob.id} is damaged` : `cannot read blob ${blob.id}`
  return new BuilderError('BAD_SOURCE', `${what}: ${(error as Error).message}`, { cause: error })
}
