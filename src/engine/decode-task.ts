import {
  type BlobCipher,
  BlobError,
  ChunkDecoder,
  ChunkInfo,
  type VerificationReceipt,
  verifyChunk,
  verifyExternalChunk,
} from '../blob/index.ts'
import {
  CodecError,
  type CompressionName,
  digester,
  type DigestName,
  inflateSlice,
  type InflateStart,
} from '../codec/index.ts'
import type { SharedBuffer } from './shared-buffers.ts'

/** One chunk of a task: where its stored bytes are, and where its plain bytes go. */
export interface DecodeChunk {
  readonly index: number
  readonly storedAt: number
  readonly storedSize: number
  readonly plainAt: number
  readonly plainSize: number
  readonly compressed: boolean
  readonly encrypted: boolean
  /** Of a chunk in a batch, whose stored bytes are the batch's: where it starts in the plain batch, and how large that is. */
  readonly batchOffset: number
  readonly batchSize: number
  readonly digest: Uint8Array
  readonly crc32c: number | undefined
}

/** Chunks of one blob to decode and verify, or only to verify when `stored` is undefined: then the plain bytes are there already. */
export interface DecodeTask {
  readonly blobId: string
  /** Its chunks have checksums in the place of digests. */
  readonly isExternal: boolean
  readonly compression: CompressionName
  readonly digest: DigestName
  readonly cipher?: BlobCipher | undefined
  readonly stored: SharedBuffer | undefined
  readonly plain: SharedBuffer
  readonly chunks: readonly DecodeChunk[]
  /** The stored bytes are a slice of a gzip that all the chunks are in. */
  readonly slice?: StoredSlice | undefined
}

/** How to inflate a slice: `length` plain bytes, in which each chunk starts at its offset. */
export interface StoredSlice extends InflateStart {
  readonly storedSize: number
  readonly length: number
  readonly offsets: readonly number[]
}

/** What became of one chunk. */
export type DecodeOutcome = VerificationReceipt | { readonly verified: false; readonly reason: string }

const info = new ChunkInfo()

/** Does a task on this thread; one outcome a chunk, in order. Bytes that are damaged are an outcome, never a throw. */
export function decodeTask(task: DecodeTask): DecodeOutcome[] {
  const allStored = task.stored?.bytes
  const allPlain = task.plain.bytes
  const failure =
    allStored === undefined || task.slice === undefined ? undefined : inflate(task, task.slice, allStored, allPlain)
  const decoder = new ChunkDecoder(task.compression, task.cipher)
  return task.chunks.map((chunk) => {
    const plain = allPlain.subarray(chunk.plainAt, chunk.plainAt + chunk.plainSize)
    info.index = chunk.index
    info.uncompressedSize = chunk.plainSize
    info.digest.set(chunk.digest)
    try {
      if (allStored !== undefined && task.slice === undefined) {
        const stored = allStored.subarray(chunk.storedAt, chunk.storedAt + chunk.storedSize)
        info.compressed = chunk.compressed
        info.encrypted = chunk.encrypted
        info.batchOffset = chunk.batchOffset
        info.batchSize = chunk.batchSize
        decoder.decode(stored, chunk.storedAt, info, plain)
      }
      info.crc32c = chunk.crc32c
      if (task.isExternal) verifyExternalChunk(plain, info, task.blobId)
      else verifyChunk(plain, info, digester(task.digest), task.blobId)
      return { verified: true, digest: Uint8Array.from(info.digest) }
    } catch (error) {
      if (!(error instanceof BlobError) && !(error instanceof CodecError)) throw error
      const what = error instanceof CodecError ? `chunk ${chunk.index} of blob ${task.blobId}: ` : ''
      return { verified: false, reason: failure ?? `${what}${error.message}` }
    }
  })
}

/** Puts the chunks of a slice in their places; tells what was wrong. What came before it may be right: digests tell. */
function inflate(task: DecodeTask, slice: StoredSlice, stored: Uint8Array, plain: Uint8Array): string | undefined {
  try {
    inflateSlice(stored.subarray(0, slice.storedSize), slice, slice.length, (bytes, at) => {
      for (const [number, { plainAt, plainSize }] of task.chunks.entries()) {
        const offset = slice.offsets[number] ?? 0
        const from = Math.max(at, offset)
        const to = Math.min(at + bytes.length, offset + plainSize)
        if (from < to) plain.set(bytes.subarray(from - at, to - at), plainAt + from - offset)
      }
    })
    return undefined
  } catch (error) {
    if (!(error instanceof CodecError)) throw error
    return `a slice of blob ${task.blobId}: ${error.message}`
  }
}
