import { BLOB_FEATURES, type BlobInfo, ChunkInfo } from '../blob/index.ts'
import {
  type Bootstrap,
  type ChunkSpan,
  chunkWindows,
  type DescribedEntry,
  hasDigests,
  type Ino,
  RafsError,
} from '../rafs/index.ts'
import { toKey } from './image-path.ts'

/** Chunks, each once, and their bytes. */
export interface ChunkFigures {
  chunks: number
  /** As the blobs store them: what goes over the network. Chunks of one batch, or of overlapping parts of a gzip stream, share theirs. */
  storedBytes: number
  plainBytes: number
}

/** What a node that has all data of A needs for B. */
export interface FetchFigures {
  /** All that files of B are made of. */
  readonly total: ChunkFigures
  /** What is not in the caches of A's blobs. */
  readonly missing: ChunkFigures
  /** Of `missing`: what A has in another blob. A chunk dictionary would have saved it. */
  readonly elsewhere: ChunkFigures
}

/** An image, and what errors call it. */
export interface NamedImage {
  readonly name: string
  readonly image: Bootstrap
}

/** Errors of one image say which it is. */
export function named<T>({ name }: NamedImage, action: () => T): T {
  try {
    return action()
  } catch (error) {
    if (!(error instanceof RafsError)) throw error
    throw new RafsError(error.code, `${name}: ${error.message}`, { cause: error })
  }
}

/** Collects the chunks of two images: 20 bytes of memory for each time that a file names one. */
export class FetchCost {
  readonly #a: ImageChunks
  readonly #b: ImageChunks

  constructor(a: NamedImage, b: NamedImage) {
    this.#a = new ImageChunks(a)
    this.#b = new ImageChunks(b)
  }

  addA(file: DescribedEntry): void {
    this.#a.add(file)
  }

  addB(file: DescribedEntry): void {
    this.#b.add(file)
  }

  figures(): FetchFigures {
    const cached = new Map(this.#a.blobs.map((blob) => [blob.id, blob]))
    const digests = this.#a.digests()
    const [total, missing, elsewhere] = [new Sum(), new Sum(), new Sum()]
    for (const blob of this.#b.blobs) {
      for (const sum of [total, missing, elsewhere]) sum.startBlob()
      for (const chunk of blob.described()) {
        total.add(chunk)
        if (cached.get(blob.id)?.has(chunk.uncompressedOffset) === true) continue
        missing.add(chunk)
        if (chunk.digest !== undefined && digests.has(chunk.digest)) elsewhere.add(chunk)
      }
    }
    return { total: total.figures(), missing: missing.figures(), elsewhere: elsewhere.figures() }
  }
}

/** One chunk of a blob that files use. */
interface UsedChunk {
  readonly uncompressedOffset: number
  readonly plainBytes: number
  readonly storedOffset: number
  readonly storedBytes: number
  /** Undefined when the image does not hold it. */
  readonly digest: string | undefined
}

/** Which chunks the files of an image name, by blob. */
class ImageChunks {
  readonly #of: NamedImage
  /** Those that files use: a crafted image may name millions. */
  readonly #used = new Map<number, BlobChunks>()
  readonly #links = new Set<Ino>()
  readonly #spans: ChunkSpan[] = []

  constructor(of: NamedImage) {
    this.#of = of
  }

  /** In the order of the table. */
  get blobs(): BlobChunks[] {
    return [...this.#used].sort(([a], [b]) => a - b).map(([, blob]) => blob)
  }

  add({ entry, ino }: DescribedEntry): void {
    if (entry.type !== 'file' || this.#links.has(ino)) return
    if (entry.nlink > 1) this.#links.add(ino)
    named(this.#of, () => {
      for (const count of chunkWindows(this.#of.image, ino, entry.size ?? 0, this.#spans)) {
        for (let i = 0; i < count; i += 1) {
          const span = this.#spans[i]
          if (span !== undefined) this.#blob(span.blobIndex).add(span)
        }
      }
    })
  }

  #blob(index: number): BlobChunks {
    const known = this.#used.get(index)
    if (known !== undefined) return known
    const blob = this.#of.image.blobs[index]
    if (blob === undefined) throw new RafsError('NOT_FOUND', `the image has no blob ${index}`)
    const used = new BlobChunks(this.#of, blob)
    this.#used.set(index, used)
    return used
  }

  /** Digests of all its chunks. */
  digests(): Set<string> {
    const found = new Set<string>()
    for (const blob of this.blobs)
      for (const { digest } of blob.described()) if (digest !== undefined) found.add(digest)
    return found
  }
}

/** The chunks of one blob that files use, told apart by their place among its plain bytes. */
class BlobChunks {
  readonly id: string
  readonly #of: NamedImage
  readonly #blob: BlobInfo
  #count = 0
  #offsets = new Float64Array(4)
  #numbers = new Uint32Array(4)
  #lengths = new Uint32Array(4)
  /** Positions in the three, by offset; made when they are asked for. */
  #order: Uint32Array | undefined

  constructor(of: NamedImage, blob: BlobInfo) {
    this.id = blob.id
    this.#of = of
    this.#blob = blob
  }

  add({ chunkOffset, chunkIndex, length }: ChunkSpan): void {
    // Files of zeros name one chunk again and again.
    if (this.#count > 0 && this.#offsets[this.#count - 1] === chunkOffset) return
    if (this.#count === this.#offsets.length) this.#grow()
    this.#offsets[this.#count] = chunkOffset
    this.#numbers[this.#count] = chunkIndex
    this.#lengths[this.#count] = length
    this.#count += 1
    this.#order = undefined
  }

  #grow(): void {
    const length = this.#count * 2
    const [offsets, numbers, lengths] = [new Float64Array(length), new Uint32Array(length), new Uint32Array(length)]
    offsets.set(this.#offsets)
    numbers.set(this.#numbers)
    lengths.set(this.#lengths)
    this.#offsets = offsets
    this.#numbers = numbers
    this.#lengths = lengths
  }

  #sortedOrder(): Uint32Array {
    if (this.#order !== undefined) return this.#order
    const order = new Uint32Array(this.#count)
    let isSorted = true
    for (let i = 0; i < this.#count; i += 1) {
      order[i] = i
      if (i > 0 && this.#at(i) < this.#at(i - 1)) isSorted = false
    }
    if (!isSorted) order.sort((x, y) => this.#at(x) - this.#at(y))
    this.#order = order
    return order
  }

  #at(position: number): number {
    return this.#offsets[position] ?? 0
  }

  has(uncompressedOffset: number): boolean {
    const order = this.#sortedOrder()
    const at = firstFrom(order.length, (i) => this.#at(order[i] ?? 0) >= uncompressedOffset)
    return at < order.length && this.#at(order[at] ?? 0) === uncompressedOffset
  }

  /** Each chunk once, in the order of the plain bytes. */
  *described(): Generator<UsedChunk> {
    const ends = (this.#blob.features & BLOB_FEATURES.BATCH) !== 0 ? this.#batchEnds() : undefined
    for (const [position, info] of this.#recorded()) {
      const uncompressedOffset = this.#at(position)
      // Tarfs has no records, and stores the tar as it is. What the file says of the chunk is all there is.
      const length = this.#lengths[position] ?? 0
      if (info === undefined)
        yield {
          uncompressedOffset,
          plainBytes: length,
          storedOffset: uncompressedOffset,
          storedBytes: length,
          digest: undefined,
        }
      else {
        const { compressedOffset: storedOffset, compressedSize, uncompressedSize: plainBytes } = info
        const storedBytes = compressedSize > 0 ? compressedSize : (ends?.(storedOffset) ?? storedOffset) - storedOffset
        yield {
          uncompressedOffset,
          plainBytes,
          storedOffset,
          storedBytes,
          digest: hasDigests(this.#blob) ? `${this.#blob.digest}:${toKey(info.digest)}` : undefined,
        }
      }
    }
  }

  /** Each chunk once: its position in the lists, and its record, which the next one overwrites. */
  *#recorded(): Generator<readonly [number, ChunkInfo | undefined]> {
    const layout = named(this.#of, () => this.#of.image.layout(this.#blob.index))
    const info = new ChunkInfo()
    let last = -1
    for (const position of this.#sortedOrder()) {
      if (this.#at(position) === last) continue
      last = this.#at(position)
      const number = this.#numbers[position] ?? 0
      const isKnown = layout.has(number)
      if (isKnown) named(this.#of, () => layout.chunk(number, info))
      yield [position, isKnown ? info : undefined]
    }
  }

  /** Of a batch only its start is in the bootstrap: it ends where the next chunk or batch that files use begins. */
  #batchEnds(): (start: number) => number {
    const starts = Float64Array.from(this.#recorded(), ([, info]) => info?.compressedOffset ?? 0).sort()
    return (start) => {
      const at = firstFrom(starts.length, (i) => (starts[i] ?? 0) > start)
      return at < starts.length ? (starts[at] ?? 0) : Math.max(start, this.#blob.compressedSize)
    }
  }
}

/** The first of `count` positions at which `isThere` holds; it holds for all after that. */
function firstFrom(count: number, isThere: (position: number) => boolean): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >> 1
    if (isThere(middle)) high = middle
    else low = middle + 1
  }
  return low
}

/** Adds chunks up; stored bytes that several share count once when these come one after the other, as they lie in a blob. */
class Sum {
  readonly #figures: ChunkFigures = { chunks: 0, storedBytes: 0, plainBytes: 0 }
  #end = 0

  startBlob(): void {
    this.#end = 0
  }

  add({ plainBytes, storedOffset, storedBytes }: UsedChunk): void {
    const end = storedOffset + storedBytes
    this.#figures.chunks += 1
    this.#figures.plainBytes += plainBytes
    this.#figures.storedBytes += Math.max(0, end - Math.max(storedOffset, this.#end))
    this.#end = Math.max(this.#end, end)
  }

  figures(): ChunkFigures {
    return this.#figures
  }
}
