/**
 * The 512-byte GNU tar headers inside blobs. Each stands behind its data, so a blob is read backwards. Source: docs/formats/blob.md, "Tar headers".
 */
import { BlobError } from './errors.ts'

export const TAR_HEADER_SIZE = 512

const SIZE_AT = 124
const CHECKSUM_AT = 148
const TYPE_AT = 156
const MAGIC_AT = 257
const MAX_OCTAL = 8 ** 11

/** A header for `name` and the `size` bytes before it: exactly the original's bytes, since blob digests cover them. */
export function encodeTarHeader(name: string, size: number): Uint8Array {
  const header = Buffer.alloc(TAR_HEADER_SIZE)
  header.write(name, 0, 'latin1')
  if (size < MAX_OCTAL) header.write(`${size.toString(8).padStart(11, '0')}\0`, SIZE_AT, 'latin1')
  else {
    header[SIZE_AT] = 0x80
    header.writeBigUInt64BE(BigInt(size), SIZE_AT + 4)
  }
  header.write('00000000000\0', 136, 'latin1')
  header.write('0', TYPE_AT, 'latin1')
  header.write('ustar  \0', MAGIC_AT, 'latin1')
  header.fill(0x20, CHECKSUM_AT, CHECKSUM_AT + 8)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(7, '0')}\0`, CHECKSUM_AT, 'latin1')
  return header
}

/** Name and size from a header. Throws BlobError 'BAD_TAR' when it is none. */
export function decodeTarHeader(header: Uint8Array): { name: string; size: number } {
  const text = Buffer.from(header.buffer, header.byteOffset, header.byteLength)
  if (
    header.length !== TAR_HEADER_SIZE ||
    text.toString('latin1', MAGIC_AT, MAGIC_AT + 5) !== 'ustar' ||
    header[TYPE_AT] !== 0x30
  ) {
    throw new BlobError(
      'BAD_TAR',
      'no tar header where the blob must have one; it is not a Nydus blob with headers, or damaged',
    )
  }
  const end = text.indexOf(0)
  const name = text.toString('latin1', 0, Math.min(100, end < 0 ? 100 : end))
  const isBinary = (header[SIZE_AT] & 0x80) !== 0
  const size = isBinary
    ? Number(text.readBigUInt64BE(SIZE_AT + 4))
    : Number.parseInt(text.toString('latin1', SIZE_AT, SIZE_AT + 11), 8)
  if (!Number.isSafeInteger(size) || size < 0)
    throw new BlobError('BAD_TAR', `the tar header of ${JSON.stringify(name)} has no valid size`)
  return { name, size }
}
