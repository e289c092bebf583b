import { SnapshotterError } from '../errors.ts'

/**
 * The plain bytes of a stored layer: gzip, zstd (also of many frames) or neither, by its first bytes. At most `mostBytes`; ending early ends the source too. Throws 'BAD_STATE', and what the
 * source throws.
 */
export async function* plainLayer(
  stored: AsyncIterable<Uint8Array>,
  mostBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { CodecError, decompressed } = await import('../../codec/index.ts')
  let left = mostBytes
  try {
    for await (const bytes of decompressed(stored)) {
      left -= bytes.length
      if (left < 0) throw new SnapshotterError('BAD_STATE', `it unpacks to more than ${mostBytes} bytes`)
      yield bytes
    }
  } catch (cause) {
    if (!(cause instanceof CodecError)) throw cause
    throw new SnapshotterError('BAD_STATE', cause.message, { cause })
  }
}
