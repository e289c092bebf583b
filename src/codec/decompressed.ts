import { pipeline, Readable, type Transform } from 'node:stream'
import { createGunzip, createZstdDecompress, zstdDecompressSync } from 'node:zlib'
import { CodecError } from './errors.ts'
import { type FramePart, splitFrames } from './zstd-frames.ts'

const OUTPUT_BYTES = 256 * 1024

/** Compressions of a layer, told by its first bytes; what is neither is taken for a plain tar. */
export type LayerCompression = 'none' | 'gzip' | 'zstd'

/** Deflate in gzip: 1f 8b 08. A zstd frame: fd2fb528 little-endian; a skippable one: 184d2a5? (RFC 1952 §2.3.1, RFC 8878 §3.1). */
export function detectCompression(head: Uint8Array): LayerCompression {
  if (head[0] === 0x1f && head[1] === 0x8b && head[2] === 0x08) return 'gzip'
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return 'zstd'
  if (((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18) return 'zstd'
  return 'none'
}

/** For decompressors, which hold pieces while they ask for more. */
async function* copied(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of stream) yield new Uint8Array(piece)
}

/** The plain bytes of a layer that is plain, gzip (any number of members) or zstd (any number of frames). Ends the source when it is left early. Pieces, of the stream
 * and given, are valid until the next one is asked for. Throws CodecError 'CORRUPT' | 'TRUNCATED', and what the stream throws. */
export async function* decompressed(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]()
  const head = await readHead(iterator)
  const whole = resume(head, iterator)
  const compression = detectCompression(head)
  if (compression === 'none') yield* whole
  else if (compression === 'gzip') yield* through(copied(whole), createGunzip({ chunkSize: OUTPUT_BYTES }), compression)
  else yield* unzstd(copied(whole))
}

/** Small frames are done in one call: a stream each would cost more than their content. */
const SMALL_FRAME_BYTES = 256 * 1024
const SMALL_CONTENT_BYTES = 4 * 1024 * 1024

async function* unzstd(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const parts = splitFrames(stream)
  try {
    for (;;) {
      const gathered: Uint8Array[] = []
      let size = 0
      let part: FramePart | undefined
      do {
        const { done, value } = await parts.next()
        if (done === true) return
        part = value
        gathered.push(value.bytes)
        size += value.bytes.length
      } while (!part.last && size <= SMALL_FRAME_BYTES && !part.skippable)
      if (part.skippable) {
        while (!part.last) {
          const { done, value } = await parts.next()
          if (done === true) return
          part = value
        }
        continue
      }
      const small = part.last ? smallFrame(Buffer.concat(gathered)) : undefined
      if (small !== undefined) yield small
      else
        yield* through(
          frame(gathered, part.last ? undefined : parts),
          createZstdDecompress({ chunkSize: OUTPUT_BYTES }),
          'zstd',
        )
    }
  } finally {
    await parts.return(undefined)
  }
}

/** Undefined when the content is too large to have in one piece. */
function smallFrame(bytes: Uint8Array): Uint8Array | undefined {
  try {
    return zstdDecompressSync(bytes, { maxOutputLength: SMALL_CONTENT_BYTES })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') return undefined
    throw damaged('zstd', cause)
  }
}

async function* frame(
  head: readonly Uint8Array[],
  parts: AsyncGenerator<FramePart> | undefined,
): AsyncGenerator<Uint8Array> {
  yield* head
  if (parts === undefined) return
  for (;;) {
    const { done, value } = await parts.next()
    if (done === true) return
    yield value.bytes
    if (value.last) return
  }
}

export async function readHead(iterator: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let head: Uint8Array = new Uint8Array(0)
  while (head.length < 4) {
    const { done, value } = await iterator.next()
    if (done === true) break
    head = head.length === 0 && value.length >= 4 ? value : Buffer.concat([head, value])
  }
  return head
}

export async function* resume(head: Uint8Array, iterator: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    if (head.length > 0) yield head
    for (;;) {
      const { done, value } = await iterator.next()
      if (done === true) return
      yield value
    }
  } finally {
    await iterator.return?.()
  }
}

async function* through(
  bytes: AsyncIterable<Uint8Array>,
  transform: Transform,
  compression: LayerCompression,
): AsyncGenerator<Uint8Array> {
  const source = Readable.from(bytes, { objectMode: false, highWaterMark: OUTPUT_BYTES })
  const state: { sourceError?: Error } = {}
  source.on('error', (error) => {
    state.sourceError = error
  })
  // The error reaches the reader through the transform; the callback only keeps it from being thrown as unhandled.
  pipeline(source, transform, () => undefined)
  try {
    for await (const chunk of transform as AsyncIterable<Buffer>) yield chunk
  } catch (cause) {
    if (state.sourceError !== undefined) throw state.sourceError
    throw damaged(compression, cause)
  } finally {
    source.destroy()
    transform.destroy()
  }
}

function damaged(compression: LayerCompression, cause: unknown): CodecError {
  return new CodecError('CORRUPT', `${compression} says ${cause instanceof Error ? cause.message : String(cause)}`, {
    cause,
  })
}
