import { gunzipSync } from 'node:zlib'
import { CodecError } from './errors.ts'

/** Fills `into` from gzip members one after another; never inflates more than one byte over its length. */
export function gunzipInto(from: Uint8Array, into: Uint8Array): void {
  let plain: Uint8Array
  try {
    plain = gunzipSync(from, {
      maxOutputLength: into.length + 1,
      chunkSize: Math.max(64, Math.min(into.length + 1, 1 << 20)),
    })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ERR_BUFFER_TOO_LARGE')
      throw new CodecError('TOO_LONG', `gzip: more than the ${into.length} bytes wanted`, { cause })
    if (code === 'Z_BUF_ERROR')
      throw new CodecError('TRUNCATED', `gzip: the ${from.length} stored bytes end in mid-member`, { cause })
    throw new CodecError('CORRUPT', 'gzip: not a valid member', { cause })
  }
  if (plain.length > into.length) throw new CodecError('TOO_LONG', `gzip: more than the ${into.length} bytes wanted`)
  if (plain.length < into.length)
    throw new CodecError('TRUNCATED', `gzip: ${plain.length} bytes where ${into.length} were wanted`)
  into.set(plain)
}
