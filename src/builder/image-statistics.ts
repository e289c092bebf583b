import { setImmediate } from 'node:timers/promises'
import { ChunkInfo } from '../blob/index.ts'
import type { DigestName } from '../codec/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  hasDigests,
  type Ino,
  isType,
  listChunks,
  MODE,
  walkBootstrap,
} from '../rafs/index.ts'

/** Figures of one or more images; the original's names. Sizes are bytes. */
export interface ImageFigures {
  dirs: number
  files: number
  symlinks: number
  /** Chunks as files name them, each as often as it is named. */
  chunks: number
  file_size: number
  comp_size: number
  uncomp_size: number
  padding_size: number
  /** Chunks that there would be with a chunk size of 2^12 … 2^20. */
  chunk_sizes: number[]
  /** Files whose size has 0 … 44 bits; the last one counts all larger ones. */
  file_sizes: number[]
  /** Of all base images together, each chunk once. */
  dedup_chunks: number
  dedup_comp_size: number
  dedup_uncomp_size: number
  /** Each image's chunks, each once; of a target those that no base image has. */
  own_chunks: number
  own_comp_size: number
  own_uncomp_size: number
  /** Of a target: chunks that a base image has. */
  ref_chunks: number
  ref_comp_size: number
  ref_uncomp_size: number
}

/** What a dictionary of the chunks that occur in at least `thresh` images would save. */
export interface DictionaryFigures {
  rawChunks: number
  dedupChunks: number
  compContent: number
  compBase: number
  compImage: number
  uncompContent: number
  uncompBase: number
  uncompImage: number
}

const MIN_CHUNK_BITS = 12
const CHUNK_BITS = 9
const FILE_BITS = 45
const THRESHOLDS = 20
/** The event loop gets its turn after so many paths. */
const PATHS_AT_ONCE = 4096

interface CountedChunk {
  readonly compressedSize: number
  readonly uncompressedSize: number
  count: number
}

/** Collects figures of base images and of one target. */
export class ImageStatistics {
  readonly base = noFigures()
  readonly target = noFigures()
  readonly #digest: DigestName
  readonly #onPath: () => void
  readonly #known = new Map<string, CountedChunk>()

  /** `digest`: chunks that are digested in another way are not compared between images. `onPath` is told of each path that was counted. */
  constructor(digest: DigestName, onPath: () => void = () => undefined) {
    this.#digest = digest
    this.#onPath = onPath
  }

  /** Throws RafsError for a damaged bootstrap, or the signal's reason; the figures are then those without it. */
  async addBase(image: Bootstrap, signal: AbortSignal): Promise<void> {
    const { figures, chunks } = await figuresOf(image, this.#onPath, signal)
    add(this.base, figures)
    const isKnown = image.blobs.every(({ digest }) => digest === this.#digest)
    for (const [digest, chunk] of chunks) {
      this.base.own_chunks += 1
      this.base.own_comp_size += chunk.compressedSize
      this.base.own_uncomp_size += chunk.uncompressedSize
      if (!isKnown) continue
      const known = this.#known.get(digest)
      if (known === undefined) this.#known.set(digest, chunk)
      else known.count += 1
    }
  }

  async addTarget(image: Bootstrap, signal: AbortSignal): Promise<void> {
    const { figures, chunks } = await figuresOf(image, this.#onPath, signal)
    add(this.target, figures)
    for (const [digest, { compressedSize, uncompressedSize }] of chunks) {
      const kind = this.#known.get(digest)?.uncompressedSize === uncompressedSize ? 'ref' : 'own'
      this.target[`${kind}_chunks`] += 1
      this.target[`${kind}_comp_size`] += compressedSize
      this.target[`${kind}_uncomp_size`] += uncompressedSize
    }
  }

  /** Counts each chunk of all base images once. To be called when all are added. */
  countDeduplicated(): void {
    for (const { compressedSize, uncompressedSize } of this.#known.values()) {
      this.base.dedup_chunks += 1
      this.base.dedup_comp_size += compressedSize
      this.base.dedup_uncomp_size += uncompressedSize
    }
  }

  /** For thresholds 1, 2, … up to 20, as long as there are chunks. */
  dictionaries(): DictionaryFigures[] {
    const rows: DictionaryFigures[] = []
    for (let threshold = 1; threshold <= THRESHOLDS && this.#known.size > 0; threshold += 1)
      rows.push(dictionaryOf(this.#known.values(), threshold))
    return rows
  }
}

function dictionaryOf(chunks: Iterable<CountedChunk>, threshold: number): DictionaryFigures {
  const row: DictionaryFigures = {
    rawChunks: 0,
    dedupChunks: 0,
    compContent: 0,
    compBase: 0,
    compImage: 0,
    uncompContent: 0,
    uncompBase: 0,
    uncompImage: 0,
  }
  for (const { count, compressedSize, uncompressedSize } of chunks) {
    row.rawChunks += count
    row.compContent += count * compressedSize
    row.uncompContent += count * uncompressedSize
    if (count >= threshold) {
      row.dedupChunks += 1
      row.compBase += compressedSize
      row.uncompBase += uncompressedSize
    } else {
      row.dedupChunks += count
      row.compImage += count * compressedSize
      row.uncompImage += count * uncompressedSize
    }
  }
  return row
}

function noFigures(): ImageFigures {
  return {
    dirs: 0,
    files: 0,
    symlinks: 0,
    chunks: 0,
    file_size: 0,
    comp_size: 0,
    uncomp_size: 0,
    padding_size: 0,
    chunk_sizes: Array.from({ length: CHUNK_BITS }, () => 0),
    file_sizes: Array.from({ length: FILE_BITS }, () => 0),
    dedup_chunks: 0,
    dedup_comp_size: 0,
    dedup_uncomp_size: 0,
    own_chunks: 0,
    own_comp_size: 0,
    own_uncomp_size: 0,
    ref_chunks: 0,
    ref_comp_size: 0,
    ref_uncomp_size: 0,
  }
}

function add(to: ImageFigures, figures: ImageFigures): void {
  for (const name of ['chunk_sizes', 'file_sizes'] as const)
    for (const [i, count] of figures[name].entries()) to[name][i] = (to[name][i] ?? 0) + count
  for (const name of [
    'dirs',
    'files',
    'symlinks',
    'chunks',
    'file_size',
    'comp_size',
    'uncomp_size',
    'padding_size',
  ] as const)
    to[name] += figures[name]
}

/** Figures of one image's tree, and its chunks by digest. */
async function figuresOf(
  image: Bootstrap,
  onPath: () => void,
  signal: AbortSignal,
): Promise<{ figures: ImageFigures; chunks: Map<string, CountedChunk> }> {
  const figures = noFigures()
  const attributes = new Attributes()
  const linked = new Set<Ino>()
  const chunks = new ChunkFigures(image)
  let paths = 0
  for (const { ino } of walkBootstrap(image)) {
    paths += 1
    if (paths % PATHS_AT_ONCE === 0) {
      await setImmediate()
      signal.throwIfAborted()
    }
    image.attributes(ino, attributes)
    onPath()
    const { mode, nlink, size } = attributes
    if (isType(mode, MODE.DIRECTORY)) figures.dirs += 1
    else if (isType(mode, MODE.SYMLINK)) figures.symlinks += 1
    else if (isType(mode, MODE.FILE)) {
      figures.files += 1
      // A link names its chunks again for the dictionary, and is no second file for the sizes.
      if (nlink < 2 || !linked.has(ino)) addFile(figures, size, chunks.of(ino, size))
      if (nlink > 1) linked.add(ino)
    }
  }
  figures.uncomp_size += figures.padding_size
  return { figures, chunks: chunks.byDigest }
}

function addFile(figures: ImageFigures, size: number, chunks: FileChunks): void {
  const bits = Math.min(FILE_BITS - 1, size === 0 ? 0 : Math.floor(Math.log2(size)) + 1)
  figures.file_sizes[bits] = (figures.file_sizes[bits] ?? 0) + 1
  for (const [i, count] of figures.chunk_sizes.entries())
    figures.chunk_sizes[i] = count + Math.ceil(size / 2 ** (MIN_CHUNK_BITS + i))
  figures.file_size += size
  figures.padding_size += Math.ceil(size / 4096) * 4096 - size
  figures.chunks += chunks.count
  figures.comp_size += chunks.compressedSize
  figures.uncomp_size += chunks.uncompressedSize
}

interface FileChunks {
  readonly count: number
  readonly compressedSize: number
  readonly uncompressedSize: number
}

class ChunkFigures {
  /** Each counts as one: it is of one image. */
  readonly byDigest = new Map<string, CountedChunk>()
  readonly #image: Bootstrap
  readonly #info = new ChunkInfo()
  readonly #spans: ChunkSpan[] = []

  constructor(image: Bootstrap) {
    this.#image = image
  }

  of(ino: Ino, size: number): FileChunks {
    const count = listChunks(this.#image, ino, size, this.#spans)
    const sums = { count, compressedSize: 0, uncompressedSize: 0 }
    for (let i = 0; i < count; i += 1) {
      const span = this.#spans[i]
      if (span === undefined) break
      const { key, compressedSize, uncompressedSize } = this.#chunk(span)
      sums.compressedSize += compressedSize
      sums.uncompressedSize += uncompressedSize
      if (!this.byDigest.has(key)) this.byDigest.set(key, { compressedSize, uncompressedSize, count: 1 })
    }
    return sums
  }

  #chunk(span: ChunkSpan): Omit<CountedChunk, 'count'> & { readonly key: string } {
    const layout = this.#image.layout(span.blobIndex)
    const blob = this.#image.blobs[span.blobIndex]
    // No two chunks without digests are known to be alike, but those in one place are.
    const place = `${blob?.id}:${span.chunkOffset}`
    // Tarfs has no records of chunks: what the file says of one is all there is.
    if (!layout.has(span.chunkIndex)) return { key: place, compressedSize: span.length, uncompressedSize: span.length }
    layout.chunk(span.chunkIndex, this.#info)
    const { compressedSize, uncompressedSize, digest } = this.#info
    const key = blob !== undefined && hasDigests(blob) ? Buffer.from(digest).toString('latin1') : place
    return { key, compressedSize, uncompressedSize }
  }
}
