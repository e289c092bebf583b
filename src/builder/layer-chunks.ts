import type { Backend } from '../backend/index.ts'
import type { BlobInfo, ZranIndex } from '../blob/index.ts'
import { inflateSlice } from '../codec/index.ts'
import { openContexts } from './check-slices.ts'
import { BuilderError } from './errors.ts'

/** A chunk of a gzip layer, inflated. */
export interface LayerChunk {
  readonly index: number
  /** In the blob's uncompressed address space. */
  readonly uncompressedOffset: number
  /** Valid until the next one is asked for. */
  readonly plain: Uint8Array
}

interface Wanted {
  readonly index: number
  readonly uncompressedOffset: number
  readonly offset: number
  readonly size: number
}

/** Plain bytes that are held at a time. A slice with more, one of a giant deflate block, is inflated anew for each part. */
const WINDOW_BYTES = 32 * 1024 * 1024

/** All chunks of a gzip layer that an image refers to, in the order of their numbers, which is that of the layer. Nothing is verified. Throws BuilderError 'BAD_SOURCE', BlobError, CodecError, or what reading throws. */
export async function* layerChunks(blob: BlobInfo, backend: Backend, signal: AbortSignal): AsyncGenerator<LayerChunk> {
  const contexts = await openContexts(blob, backend, signal)
  const layer = await backend.open(blob.id)
  try {
    const size = await layer.size(signal)
    for (let first = 0; first < blob.chunkCount; ) {
      const number = contexts.contextOf(first)
      const chunks = windowOf(contexts, blob, first, number)
      const { compressedOffset, compressedSize, ...start } = contexts.context(number)
      if (compressedOffset + compressedSize > size)
        throw new BuilderError(
          'BAD_SOURCE',
          `the layer ${blob.id} ends at byte ${size}, within slice ${number} of it; it is truncated`,
        )
      const stored = new Uint8Array(compressedSize)
      await layer.read(compressedOffset, stored, { signal })
      yield* inflated(stored, start, chunks)
      first += chunks.length
    }
  } finally {
    await layer.close()
  }
}

/** Chunks from one on that lie in the same slice, no more than are held at a time. */
function windowOf(contexts: ZranIndex, { chunkCount }: BlobInfo, first: number, slice: number): Wanted[] {
  const found: Wanted[] = []
  for (let index = first; index < chunkCount && contexts.contextOf(index) === slice; index += 1) {
    const { uncompressedOffset, uncompressedSize: size } = contexts.placeOf(index)
    const chunk = { index, uncompressedOffset, offset: contexts.offsetOf(index, size), size }
    const from = found[0]?.offset ?? chunk.offset
    if (found.length > 0 && (chunk.offset < from || chunk.offset + size - from > WINDOW_BYTES)) break
    found.push(chunk)
  }
  return found
}

function* inflated(
  stored: Uint8Array,
  start: Parameters<typeof inflateSlice>[1],
  chunks: readonly Wanted[],
): Generator<LayerChunk> {
  const from = chunks[0]?.offset ?? 0
  const end = chunks.reduce((most, { offset, size }) => Math.max(most, offset + size), 0)
  const window = new Uint8Array(end - from)
  inflateSlice(stored, start, end, (bytes, at) => {
    if (at + bytes.length <= from) return
    const part = at < from ? bytes.subarray(from - at) : bytes
    window.set(part, Math.max(0, at - from))
  })
  for (const { index, uncompressedOffset, offset, size } of chunks)
    yield { index, uncompressedOffset, plain: window.subarray(offset - from, offset - from + size) }
}
