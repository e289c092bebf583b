import { decodeTarHeader, encodeTarHeader, TAR_HEADER_SIZE } from './tar-header.ts'
import { decodeToc, PARTS, type TocEntry } from './toc.ts'

/** As many of a blob's last bytes as `locateBootstrap` wants; more than every known table of contents has. */
export const BOOTSTRAP_TAIL_BYTES = 0x1_0000
/** No image's metadata is as large; what says so is damaged or crafted. */
const MAX_BOOTSTRAP_BYTES = 0x4000_0000
/** Nor does one compress better. */
const MAX_RATIO = 1000

/**
 * Where the bootstrap lies in a blob that carries its own, told by the blob's last bytes; undefined for a file that is no such blob. Throws BlobError 'BAD_TOC' when the
 * blob contradicts itself. Source: docs/formats/blob.md, "Layouts".
 */
export function locateBootstrap(tail: Uint8Array, blobSize: number): TocEntry | undefined {
  const header = lastHeader(tail)
  if (header?.name === PARTS.toc) return bounded(decodeToc(tail, blobSize).find(({ name }) => name === PARTS.bootstrap))
  if (header?.name !== PARTS.bootstrap) return undefined
  const compressedOffset = blobSize - TAR_HEADER_SIZE - header.size
  if (compressedOffset < 0) return undefined
  const size = { compressedSize: header.size, uncompressedSize: header.size }
  return bounded({ name: PARTS.bootstrap, compression: 'none', digest: undefined, compressedOffset, ...size })
}

function lastHeader(tail: Uint8Array): { name: string; size: number } | undefined {
  try {
    return decodeTarHeader(tail.subarray(Math.max(0, tail.length - TAR_HEADER_SIZE)))
  } catch {
    return undefined // a file that ends with anything else is no such blob
  }
}

function bounded(part: TocEntry | undefined): TocEntry | undefined {
  if (part === undefined) return undefined
  const isBomb = part.uncompressedSize > 0x10_0000 && part.uncompressedSize > part.compressedSize * MAX_RATIO
  return isBomb || part.uncompressedSize > MAX_BOOTSTRAP_BYTES ? undefined : part
}

/** A blob of nothing but its bootstrap, without a table of contents. */
export function inlinedBootstrap(bootstrap: Uint8Array): Uint8Array {
  return Buffer.concat([bootstrap, encodeTarHeader(PARTS.bootstrap, bootstrap.length)])
}
