import { BLOB_FEATURES, type BlobInfo } from '../../blob/index.ts'
import { checkBlobId } from '../blob-id.ts'
import { RafsError } from '../errors.ts'
import { BLOB_FRAME, EXTENDED_BLOB } from './layout.ts'
import { roundUp, setLong } from '../numbers.ts'

/** Bits of a blob's features that are not for disk: the reader's own mark of images without an extended table. */
const INTERNAL_FEATURES = 0x8000_0000

/** Bytes of the blob table, padding included. No NUL follows the last id. */
export function blobTableSize(blobs: readonly BlobInfo[]): number {
  const bytes = blobs.reduce((sum, { id }) => sum + BLOB_FRAME.id + Buffer.byteLength(id, 'latin1') + 1, 0)
  return roundUp(Math.max(0, bytes - 1), 8)
}

/** Writes both tables of blobs. Throws 'UNSUPPORTED' for blobs that v5 has no words for. */
export function writeBlobTables(view: DataView, tableAt: number, extendedAt: number, blobs: readonly BlobInfo[]): void {
  let at = tableAt
  for (const [index, blob] of blobs.entries()) {
    checkFits(blob)
    const id = Buffer.from(checkBlobId(blob.id), 'latin1')
    view.setUint32(at + BLOB_FRAME.prefetchSize, blob.prefetchSize, true)
    new Uint8Array(view.buffer).set(id, at + BLOB_FRAME.id)
    at += BLOB_FRAME.id + id.length + 1
    const entry = extendedAt + index * EXTENDED_BLOB.size
    view.setUint32(entry + EXTENDED_BLOB.chunkCount, blob.chunkCount, true)
    view.setUint32(entry + EXTENDED_BLOB.features, (blob.features & ~INTERNAL_FEATURES) >>> 0, true)
    setLong(view, entry + EXTENDED_BLOB.uncompressedSize, blob.uncompressedSize)
    setLong(view, entry + EXTENDED_BLOB.compressedSize, blob.compressedSize)
  }
}

function checkFits(blob: BlobInfo): void {
  const { ENCRYPTED, TARFS, SEPARATE, BATCH } = BLOB_FEATURES
  if ((blob.features & (ENCRYPTED | TARFS | SEPARATE | BATCH)) !== 0)
    throw new RafsError(
      'UNSUPPORTED',
      `blob ${blob.id} is encrypted, batched or a tar; RAFS v5 cannot tell how to read it`,
    )
  if (blob.prefetchSize >= 2 ** 32)
    throw new RafsError(
      'TOO_LARGE',
      `blob ${blob.id} has ${blob.prefetchSize} bytes to prefetch, RAFS v5 can hold 4 GiB`,
    )
}
