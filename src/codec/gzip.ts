import { inflateRawSync, constants } from 'node:zlib'
import { CodecError } from './errors.ts'
import { nextMember } from './inflate-slice.ts'
import { InflateStream } from './inflate-stream.ts'

/** Where zlib cannot be called step by step, what a member holds behind the wanted bytes is inflated too: no more than this. */
const MAX_SURPLUS_BYTES = 32 * 1024 * 1024

/** One for the life of the thread. */
let stream: InflateStream | undefined

/**
 * Fills `into` with the first bytes of the gzip member that `from` starts with. What is behind them is left alone: members of eStargz layers hold a chunk of a file, then archive headers, and how long they are is only known
 * roughly. A member's CRC is not looked at, as chunks have digests.
 */
export function gunzipInto(from: Uint8Array, into: Uint8Array): void {
  const data = unshared(from).subarray(nextMember(from, 0, 0, into.length))
  stream ??= InflateStream.open('raw')
  const made = stream === undefined ? inflateWhole(data, into) : inflateFirst(stream, data, into)
  if (made < into.length) throw new CodecError('TRUNCATED', `gzip: ${made} bytes where ${into.length} were wanted`)
}

function inflateFirst(inflate: InflateStream, data: Uint8Array, into: Uint8Array): number {
  inflate.reset('raw')
  const output = unshared(into)
  inflate.feed(data)
  inflate.aim(output)
  try {
    for (let isEnd = false; inflate.outputLeft > 0 && !isEnd; ) {
      const step = inflate.run(false)
      if (step.produced === 0 && step.consumed === 0) break
      isEnd = step.isEnd
    }
    if (output !== into) into.set(output)
    return into.length - inflate.outputLeft
  } finally {
    inflate.release()
  }
}

function inflateWhole(data: Uint8Array, into: Uint8Array): number {
  try {
    const plain = inflateRawSync(data, {
      finishFlush: constants.Z_SYNC_FLUSH, // the end may be cut
      maxOutputLength: into.length + MAX_SURPLUS_BYTES,
    })
    into.set(plain.subarray(0, into.length))
    return Math.min(plain.length, into.length)
  } catch (cause) {
    const isTooLong = (cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
    throw new CodecError(isTooLong ? 'TOO_LONG' : 'CORRUPT', 'gzip: not a valid member of that length', { cause })
  }
}

/** Native calls take no shared memory. */
function unshared(bytes: Uint8Array): Uint8Array {
  return bytes.buffer instanceof SharedArrayBuffer ? new Uint8Array(bytes) : bytes
}
