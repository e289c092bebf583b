import { BlobError, ChunkInfo, decodeChunk, type VerificationReceipt, verifyChunk } from '../blob/index.ts'
import { CodecError, type CompressionName, digester, type DigestName, plainBytes } from '../codec/index.ts'

/** One chunk of a task: where its stored bytes are, and where its plain bytes go. Can be sent to a thread. */
export interface DecodeChunk {
  readonly index: number
  readonly storedAt: number
  readonly storedSize: number
  readonly plainAt: number
  readonly plainSize: number
  readonly compressed: boolean
  readonly encrypted: boolean
  readonly digest: Uint8Array
}

/** Chunks of one blob to decode and verify, or only to verify when `stored` is undefined: then the plain bytes are there already. */
export interface DecodeTask {
  readonly blobId: string
  readonly compression: CompressionName
  readonly digest: DigestName
  readonly stored: SharedArrayBuffer | undefined
  readonly plain: SharedArrayBuffer
  readonly chunks: readonly DecodeChunk[]
}

/** What became of one chunk. */
export type DecodeOutcome = VerificationReceipt | { readonly verified: false; readonly reason: string }

const info = new ChunkInfo()

/** Does a task on this thread; one outcome a chunk, in order. Bytes that are damaged are an outcome, never a throw. */
export function decodeTask(task: DecodeTask): DecodeOutcome[] {
  const allStored = task.stored === undefined ? undefined : plainBytes(task.stored)
  const allPlain = plainBytes(task.plain)
  return task.chunks.map((chunk) => {
    const plain = allPlain.subarray(chunk.plainAt, chunk.plainAt + chunk.plainSize)
    info.index = chunk.index
    info.uncompressedSize = chunk.plainSize
    info.compressedSize = chunk.storedSize
    info.compressed = chunk.compressed
    info.encrypted = chunk.encrypted
    info.digest.set(chunk.digest)
    try {
      if (allStored !== undefined) {
        const stored = allStored.subarray(chunk.storedAt, chunk.storedAt + chunk.storedSize)
        decodeChunk(stored, info, task.compression, plain)
      }
      verifyChunk(plain, info, digester(task.digest), task.blobId)
      return { verified: true, digest: Uint8Array.from(info.digest) }
    } catch (error) {
      if (!(error instanceof BlobError) && !(error instanceof CodecError)) throw error
      const what = error instanceof CodecError ? `chunk ${chunk.index} of blob ${task.blobId}: ` : ''
      return { verified: false, reason: `${what}${error.message}` }
    }
  })
}
