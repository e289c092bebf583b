import { pipeline, Readable, type Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { SnapshotterError } from '../errors.ts'

const OUTPUT_BYTES = 256 * 1024

/** The plain bytes of a stored layer: gzip, zstd or neither, by its first bytes. At most `mostBytes`; ending early ends the source too. Throws 'BAD_STATE', and what the source throws. */
export async function* plainLayer(
  stored: AsyncIterable<Uint8Array>,
  mostBytes: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { head, whole } = await peek(stored)
  let left = mostBytes
  for await (const bytes of decompressed(head, whole)) {
    left -= bytes.length
    if (left < 0) throw new SnapshotterError('BAD_STATE', `it unpacks to more than ${mostBytes} bytes`)
    yield bytes
  }
}

function decompressed(head: Uint8Array, whole: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  // RFC 1952 §2.3.1 and RFC 8878 §3.1.1.
  if (head[0] === 0x1f && head[1] === 0x8b) return through(whole, 'gzip', createGunzip({ chunkSize: OUTPUT_BYTES }))
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd)
    return through(whole, 'zstd', createZstdDecompress({ chunkSize: OUTPUT_BYTES }))
  return whole
}

async function* through(
  whole: AsyncIterable<Uint8Array>,
  name: string,
  transform: Transform,
): AsyncGenerator<Uint8Array> {
  const source = Readable.from(whole, { objectMode: false, highWaterMark: OUTPUT_BYTES })
  let sourceError: Error | undefined
  source.on('error', (error) => {
    sourceError = error
  })
  // The error reaches the reader through `transform`; the callback only keeps it from being thrown as unhandled.
  pipeline(source, transform, () => undefined)
  try {
    for await (const bytes of transform as AsyncIterable<Buffer>) yield bytes
  } catch (cause) {
    if (sourceError !== undefined) throw sourceError
    throw new SnapshotterError('BAD_STATE', `${name} says ${(cause as Error).message}`, { cause })
  } finally {
    source.destroy()
    transform.destroy()
  }
}

/** The first four bytes, if there are as many, and all of it. */
async function peek(
  stored: AsyncIterable<Uint8Array>,
): Promise<{ head: Uint8Array; whole: AsyncIterable<Uint8Array> }> {
  const iterator = stored[Symbol.asyncIterator]()
  let head: Uint8Array = new Uint8Array(0)
  while (head.length < 4) {
    const next = await iterator.next()
    if (next.done === true) break
    head = Buffer.concat([head, next.value])
  }
  async function* whole(): AsyncGenerator<Uint8Array> {
    try {
      yield head
      for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value
    } finally {
      await iterator.return?.()
    }
  }
  return { head, whole: whole() }
}
