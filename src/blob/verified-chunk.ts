import { crc32c, type Digester } from '../codec/index.ts'
import type { ChunkInfo } from './chunk-info.ts'
import { BlobError } from './errors.ts'

declare const verified: unique symbol

/**
 * Bytes of one whole chunk whose digest was compared with the image's. Only `verifyChunk` and, on its worker's receipt, `acceptReceipt` make one; the cache takes
 * nothing else. A cast anywhere else is a bug. Of external blobs it is a checksum that was compared.
 */
export type VerifiedChunk = Uint8Array & { readonly [verified]: true }

const found = new Uint8Array(32)

/** Compares the digest of a chunk's plain bytes with the image's. Throws BlobError 'BAD_DIGEST' with both. `blobId` is for the message. */
export function verifyChunk(bytes: Uint8Array, chunk: ChunkInfo, digester: Digester, blobId: string): VerifiedChunk {
  if (bytes.length !== chunk.uncompressedSize) {
    throw new BlobError(
      'BAD_DIGEST',
      `chunk ${chunk.index} of blob ${blobId} has ${bytes.length} bytes, the image says ${chunk.uncompressedSize}`,
    )
  }
  digester.digest(bytes, found)
  if (!equal(found, chunk.digest)) throw badDigest(chunk, blobId, found)
  return bytes as VerifiedChunk // its digest was compared on the line above
}

/**
 * Compares the CRC-32C of a chunk of an external blob, of which images hold no digest: it finds damage, not malice. Throws BlobError 'BAD_DIGEST', also for a chunk without one. `blobId` is for the message.
 */
export function verifyExternalChunk(bytes: Uint8Array, chunk: ChunkInfo, blobId: string): VerifiedChunk {
  const name = `chunk ${chunk.index} of external blob ${blobId}`
  if (chunk.crc32c === undefined)
    throw new BlobError(
      'BAD_DIGEST',
      `${name} cannot be verified: the image has neither digest nor checksum of it; build it with "crcs" in the attributes`,
    )
  const sum = crc32c(bytes)
  if (bytes.length === chunk.uncompressedSize && sum === chunk.crc32c) return bytes as VerifiedChunk // compared on this line
  throw new BlobError(
    'BAD_DIGEST',
    `${name} has the checksum ${sum.toString(16)}, the image says ${chunk.crc32c.toString(16)}; its data has changed: restore it, or build the image again`,
  )
}

/** What a worker that ran {@link verifyChunk} or {@link verifyExternalChunk} sends back. Only the engine's decode pool may turn one into a VerifiedChunk. */
export interface VerificationReceipt {
  readonly verified: true
  /** The digest that was found equal. */
  readonly digest: Uint8Array
}

/** Mints from a worker's receipt: the same bytes in shared memory, the same digest. Throws BlobError 'BAD_DIGEST' when the receipt is for another chunk. */
export function acceptReceipt(
  receipt: VerificationReceipt,
  bytes: Uint8Array,
  chunk: ChunkInfo,
  blobId: string,
): VerifiedChunk {
  if (!equal(receipt.digest, chunk.digest)) throw badDigest(chunk, blobId, receipt.digest)
  return bytes as VerifiedChunk // the worker compared its digest; the receipt is for this chunk
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  for (let index = 0; index < 32; index++) if (a[index] !== b[index]) return false
  return true
}

function badDigest(chunk: ChunkInfo, blobId: string, got: Uint8Array): BlobError {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  return new BlobError(
    'BAD_DIGEST',
    `chunk ${chunk.index} of blob ${blobId} has digest ${hex(got)}, the image says ${hex(chunk.digest)}; the blob is damaged: push it again, or delete the cache if it came from there`,
  )
}
