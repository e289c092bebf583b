import type { Backend } from '../backend/index.ts'
import { BlobError, type BlobInfo, type ChunkInfo, readZranMeta, ZranIndex, zranMetaFileSize } from '../blob/index.ts'
import { type ContextKind, openContext } from './blob-context.ts'
import type { StoredSlice } from './decode-task.ts'
import type { FetchRange, PlannedBlob } from './plan.ts'
import { ChunkPlace } from './plan.ts'

/** Plain bytes that one request brings at most, when more than one chunk is wanted: only giant slices have more. */
const MAX_PLAIN_BYTES = 8 << 20

/** The slices of a gzip layer that its chunks come from: what a request fetches is always one slice, and brings all that is missing of it. */
export class ZranSlices {
  readonly #index: ZranIndex

  private constructor(index: ZranIndex) {
    this.#index = index
  }

  /** Reads the blob's compression context from the cache's folder, or from its blob, and keeps it. Throws BlobError, BackendError or CacheError. */
  static async open(blob: BlobInfo, backend: Backend, cacheDirectory: string | undefined): Promise<ZranSlices> {
    const id = blob.metaBlobId
    if (id === undefined)
      throw new BlobError(
        'BAD_META',
        `blob ${blob.id} does not say where its compression context is; name the bootstrap by the id of the blob that it came from`,
      )
    const kind: ContextKind<ZranIndex> = {
      storedIn: id,
      fileSize: zranMetaFileSize(blob),
      fetch: (read) => readZranMeta(blob, read),
      parse: (file) => new ZranIndex(file, blob),
    }
    return new ZranSlices(await openContext(blob, kind, backend, cacheDirectory))
  }

  /** False for a chunk that its compression context tells otherwise than the bootstrap. */
  describes({ index, uncompressedSize }: ChunkInfo): boolean {
    try {
      this.#index.offsetOf(index, uncompressedSize)
      return true
    } catch (error) {
      if (error instanceof BlobError) return false
      throw error
    }
  }

  /** How to inflate a slice for these chunks of it: no further than the last of them. */
  slice(number: number, chunks: readonly ChunkInfo[]): StoredSlice {
    const { bits, byte, dictionary, compressedSize } = this.#index.context(number)
    const offsets = chunks.map(({ index, uncompressedSize }) => this.#index.offsetOf(index, uncompressedSize))
    const length = chunks.reduce((end, chunk, at) => Math.max(end, (offsets[at] ?? 0) + chunk.uncompressedSize), 0)
    // A copy: a message to a thread would take all of the memory that a view is of.
    return { bits, byte, dictionary: dictionary.slice(), storedSize: compressedSize, length, offsets }
  }

  /** One request a slice, with its other missing chunks. All that are wanted must be described. */
  plan(wanted: readonly number[], blob: PlannedBlob): FetchRange[] {
    const bySlice = new Map<number, number[]>()
    for (const chunk of [...wanted].sort((a, b) => a - b)) {
      const number = this.#index.contextOf(chunk)
      const found = bySlice.get(number)
      if (found === undefined) bySlice.set(number, [chunk])
      else found.push(chunk)
    }
    return [...bySlice].flatMap(([number, chunks]) => this.#ranges(number, chunks, blob))
  }

  /** The request for some chunks of one slice and nothing else. */
  range(number: number, chunks: readonly number[], plainLength: number): FetchRange {
    const { compressedOffset, compressedSize } = this.#index.context(number)
    return { compressedOffset, length: compressedSize, chunks, plainLength, slice: number }
  }

  rangeOf({ index, uncompressedSize }: ChunkInfo): FetchRange {
    return this.range(this.#index.contextOf(index), [index], uncompressedSize)
  }

  #ranges(number: number, wanted: readonly number[], blob: PlannedBlob): FetchRange[] {
    const place = new ChunkPlace()
    const ranges: FetchRange[] = []
    let [chunks, plain]: [number[], number] = [[], 0]
    const add = (chunk: number): void => {
      if (!blob.place(chunk, place)) return
      if (chunks.length > 0 && plain + place.plainSize > MAX_PLAIN_BYTES) {
        ranges.push(this.range(number, chunks, plain))
        ;[chunks, plain] = [[], 0]
      }
      chunks.push(chunk)
      plain += place.plainSize
    }
    for (const chunk of wanted) add(chunk)
    for (const chunk of this.#neighbours(number, wanted, blob)) {
      if (!blob.place(chunk, place) || plain + place.plainSize > MAX_PLAIN_BYTES) continue
      add(chunk)
    }
    if (chunks.length > 0) ranges.push(this.range(number, chunks, plain))
    return ranges
  }

  /** Missing chunks of the same slice; a slice's chunks have numbers in a row. */
  *#neighbours(number: number, wanted: readonly number[], blob: PlannedBlob): Generator<number> {
    const asked = new Set(wanted)
    const place = new ChunkPlace()
    const isIn = (chunk: number): boolean => blob.place(chunk, place) && this.#index.contextOf(chunk) === number
    const [first = 0] = wanted
    for (let chunk = first + 1; isIn(chunk); chunk += 1) if (!asked.has(chunk) && blob.isMissing(chunk)) yield chunk
    for (let chunk = first - 1; isIn(chunk); chunk -= 1) if (!asked.has(chunk) && blob.isMissing(chunk)) yield chunk
  }
}
