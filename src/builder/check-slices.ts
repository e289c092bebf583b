import type { Backend, BlobReader } from '../backend/index.ts'
import { BlobError, type BlobInfo, ChunkInfo, readZranMeta, ZranIndex } from '../blob/index.ts'
import { CodecError, type Digester, digester, inflateSlice } from '../codec/index.ts'
import type { Bootstrap } from '../rafs/index.ts'

export interface SliceRun {
  readonly signal: AbortSignal
  /** Told what was read. */
  readonly onBytes: (storedBytes: number) => void
}

/** A chunk of a slice that is being inflated. */
interface Wanted {
  readonly index: number
  readonly offset: number
  readonly size: number
  readonly digest: Uint8Array
}

/**
 * Inflates every slice of a gzip layer that an image refers to, once and front to back, and compares the digests of its chunks; gives what is wrong, in words. Memory is that of a slice as it is
 * stored and of a chunk. Throws what reading throws, and BlobError for a compression context that does not fit the image.
 */
export async function* checkSlices(
  image: Bootstrap,
  blob: BlobInfo,
  backend: Backend,
  run: SliceRun,
): AsyncGenerator<string> {
  const contexts = await openContexts(blob, backend, run.signal)
  const layer = await backend.open(blob.id)
  try {
    const size = await layer.size(run.signal)
    for (const [number, chunks] of wantedChunks(image, blob, contexts)) {
      const { compressedOffset, compressedSize, ...start } = contexts.context(number)
      const end = compressedOffset + compressedSize
      const bad = (what: string): string => `slice ${number} (bytes ${compressedOffset} to ${end}): ${what}`
      if (end > size) {
        yield bad(`the layer ends at byte ${size}`)
        continue
      }
      const stored = new Uint8Array(compressedSize)
      await layer.read(compressedOffset, stored, { signal: run.signal })
      run.onBytes(compressedSize)
      const reader = new SliceChunks(chunks, blob)
      try {
        inflateSlice(stored, start, reader.end, (bytes, at) => reader.take(bytes, at))
      } catch (error) {
        if (!(error instanceof CodecError)) throw error
        yield bad(error.message)
      }
      yield* reader.findings
    }
  } finally {
    await layer.close()
  }
}

/** Opens the contexts of a gzip layer that an image refers to. Throws BlobError 'BAD_META', or what reading throws. */
export async function openContexts(blob: BlobInfo, backend: Backend, signal: AbortSignal): Promise<ZranIndex> {
  if (blob.metaBlobId === undefined)
    throw new BlobError(
      'BAD_META',
      'it does not say where its compression context is; name the bootstrap by the id of the blob that it came from',
    )
  const reader: BlobReader = await backend.open(blob.metaBlobId)
  try {
    return new ZranIndex(await readZranMeta(blob, (offset, into) => reader.read(offset, into, { signal })), blob)
  } finally {
    await reader.close()
  }
}

/** Chunks by slice, in the order of their numbers, which is that of the layer. */
function wantedChunks(image: Bootstrap, blob: BlobInfo, contexts: ZranIndex): Map<number, Wanted[]> {
  const layout = image.layout(blob.index)
  const info = new ChunkInfo()
  const bySlice = new Map<number, Wanted[]>()
  for (let index = 0; index < layout.chunkCount; index += 1) {
    if (!layout.has(index)) continue
    layout.chunk(index, info)
    const { uncompressedSize: size, digest } = info
    const wanted = { index, offset: contexts.offsetOf(index, size), size, digest: digest.slice() }
    const number = contexts.contextOf(index)
    const found = bySlice.get(number)
    if (found === undefined) bySlice.set(number, [wanted])
    else found.push(wanted)
  }
  return bySlice
}

/** Cuts a slice's plain bytes into chunks, one at a time. */
class SliceChunks {
  readonly findings: string[] = []
  readonly end: number
  readonly #chunks: readonly Wanted[]
  readonly #name: BlobInfo['digest']
  readonly #digester: Digester
  readonly #found = Buffer.alloc(32)
  readonly #plain: Buffer
  #current = 0
  /** Bytes of the current chunk. */
  #filled = 0

  constructor(chunks: readonly Wanted[], { digest }: BlobInfo) {
    this.#chunks = chunks
    this.#name = digest
    this.#digester = digester(digest)
    this.end = chunks.reduce((end, { offset, size }) => Math.max(end, offset + size), 0)
    this.#plain = Buffer.allocUnsafe(chunks.reduce((most, { size }) => Math.max(most, size), 0))
  }

  take(bytes: Uint8Array, at: number): void {
    const end = at + bytes.length
    for (let chunk = this.#chunks[this.#current]; chunk !== undefined; chunk = this.#chunks[this.#current]) {
      const from = chunk.offset + this.#filled
      if (from >= end) return
      if (from < at) {
        // As no builder makes them.
        this.findings.push(`chunk ${chunk.index}: it does not lie behind the one before it`)
        this.#next()
        continue
      }
      const part = bytes.subarray(from - at, Math.min(end, chunk.offset + chunk.size) - at)
      this.#plain.set(part, this.#filled)
      this.#filled += part.length
      if (this.#filled < chunk.size) return
      this.#compare(chunk)
      this.#next()
    }
  }

  #next(): void {
    this.#current += 1
    this.#filled = 0
  }

  #compare({ index, size, digest }: Wanted): void {
    this.#digester.digest(this.#plain.subarray(0, size), this.#found)
    if (this.#found.equals(digest)) return
    const [found, wanted] = [this.#found.toString('hex'), Buffer.from(digest).toString('hex')]
    this.findings.push(`chunk ${index}: its ${this.#name} digest is ${found}, the image wants ${wanted}`)
  }
}
