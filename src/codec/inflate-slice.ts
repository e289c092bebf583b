import { CodecError } from './errors.ts'
import { InflateStream } from './inflate-stream.ts'

/** Where in mid-stream to start. */
export interface InflateStart {
  /** Bits of `byte`, its highest, that belong to what is to be inflated; 0 to 7. */
  readonly bits: number
  readonly byte: number
  /** The plain bytes before, up to 32 KiB. */
  readonly dictionary: Uint8Array
}

/** Plain bytes are handed on in parts of this. */
const PART_BYTES = 256 * 1024
/** CRC and length behind each gzip member. RFC 1952 §2.3.1. */
const TRAILER_BYTES = 8

/** Takes plain bytes, in order; `at` counts from the start. Valid during the call. */
export type PlainSink = (bytes: Uint8Array, at: number) => void

/**
 * Inflates a slice of a gzip file from a point in mid-stream: the rest of a member, and the members after it. Ends after `length` plain bytes, so a bomb costs what was asked for and no more.
 * Throws CodecError 'CORRUPT', 'TRUNCATED' when fewer come out, or 'UNSUPPORTED' where zlib cannot be called.
 */
export function inflateSlice(input: Uint8Array, start: InflateStart, length: number, sink: PlainSink): void {
  if (!isMember(input, TRAILER_BYTES)) return inflateFrom(input, start, length, sink)
  // The original starts slices of files with many members behind the last block of one: what follows are its trailer and the next header.
  let hasOutput = false
  try {
    inflateFrom(input, start, length, (bytes, at) => {
      hasOutput = true
      sink(bytes, at)
    })
  } catch (error) {
    if (hasOutput || !(error instanceof CodecError)) throw error
    const from = nextMember(input, TRAILER_BYTES, 0, length)
    inflateFrom(input.subarray(from), { bits: 0, byte: 0, dictionary: new Uint8Array(0) }, length, sink)
  }
}

function isMember(input: Uint8Array, at: number): boolean {
  return input[at] === 0x1f && input[at + 1] === 0x8b && input[at + 2] === 8
}

/** One for the life of the thread. */
let stream: InflateStream | undefined
let part: Uint8Array | undefined

function inflateFrom(input: Uint8Array, start: InflateStart, length: number, sink: PlainSink): void {
  stream ??= InflateStream.open('raw')
  if (stream === undefined) throw new CodecError('UNSUPPORTED', 'gzip: zlib cannot be called on this machine')
  part ??= new Uint8Array(PART_BYTES)
  stream.resume(start.bits, start.byte, start.dictionary)
  stream.feed(input)
  try {
    for (let made = 0; made < length; ) {
      const into = part.subarray(0, Math.min(PART_BYTES, length - made))
      stream.aim(into)
      const { consumed, produced, isEnd } = stream.run(false)
      if (produced > 0) sink(into.subarray(0, produced), made)
      made += produced
      if (made === length) return
      if (isEnd) {
        stream.feed(input.subarray(nextMember(input, input.length - stream.inputLeft + TRAILER_BYTES, made, length)))
        stream.reset('raw')
      } else if (produced === 0 && consumed === 0) throw short(made, length)
    }
  } finally {
    stream.release()
  }
}

/** Where the deflate stream of the next member starts: behind its header. RFC 1952 §2.3. */
export function nextMember(input: Uint8Array, from: number, made: number, length: number): number {
  const flags = input[from + 3] ?? 0
  if (from + 10 > input.length) throw short(made, length)
  if (!isMember(input, from)) throw new CodecError('CORRUPT', 'gzip: what follows a member is no other one')
  let at = from + 10
  if ((flags & 0x4) !== 0) at += 2 + (input[at] ?? 0) + (input[at + 1] ?? 0) * 256
  for (const bit of [0x8, 0x10]) {
    if ((flags & bit) === 0) continue
    const end = input.indexOf(0, at)
    if (end < 0) throw short(made, length)
    at = end + 1
  }
  if ((flags & 0x2) !== 0) at += 2
  if (at > input.length) throw short(made, length)
  return at
}

function short(made: number, length: number): CodecError {
  return new CodecError('TRUNCATED', `gzip: ${made} bytes where ${length} were wanted`)
}
