import { closeSync, openSync } from 'node:fs'
import { BLOB_FEATURES, ChunkInfo } from '../../blob/index.ts'
import { HotReader } from '../../engine/index.ts'
import { KernelError } from '../../kernel/index.ts'
import { addressOf, sealedFile } from '../../kernel/vm/index.ts'
import { ChunkSpan, flatView, RafsError } from '../../rafs/index.ts'
import { DaemonError } from '../errors.ts'
import type { MountedImage } from '../image.ts'
import { type DiskPieces, type DiskRange, PAGE, PageMap, type Place } from './page-map.ts'

/** Chunks of one blob that the image describes, in the order of the disk. */
interface Chunks {
  readonly count: number
  readonly starts: Float64Array
  readonly sizes: Uint32Array
  readonly indexes: Uint32Array
}

/** A blob on the disk. Places are bytes of the disk. */
interface Device {
  readonly blobIndex: number
  readonly start: number
  readonly end: number
  /** Undefined for a plain tar, all of which is data. */
  readonly chunks: Chunks | undefined
  /** Where the data of a plain tar ends. */
  readonly tarEnd: number
}

/** A blob's part of the disk, as a file of its own: ranges are of its bytes. */
export interface DiskBlob {
  /** Where it begins on the disk. */
  readonly start: number
  readonly size: number
  /** Whole chunks that have something of a range, in order. */
  chunks(range: DiskRange): DiskRange[]
}

/** Bytes of the disk without gaps, and what fills them. */
interface Run {
  readonly offset: number
  length: number
  readonly spans: ChunkSpan[]
}

/**
 * An image as one read-only disk that a kernel mounts as EROFS: its bootstrap, then the plain bytes of each blob at its place. What no file of the image uses reads as zeros, since there is nothing
 * that it could be compared with; everything else is verified before it is given. The image must stay open as long as the disk.
 */
export class ImageDisk {
  /** Bytes. */
  readonly size: number
  readonly blockSize: number
  readonly #image: MountedImage
  readonly #hot: HotReader
  readonly #devices: readonly Device[]
  /** Files of pieces, by the number of their blob; -1 = the bootstrap. */
  readonly #files = new Map<number, number>()

  /** Throws DaemonError 'BAD_IMAGE' for an image that is no disk: RAFS v5, or one of an old tool. */
  constructor(image: MountedImage) {
    this.#image = image
    this.#hot = new HotReader(image.reader.hot)
    const { bytes, bootstrap } = image.loaded
    try {
      const { blockSize, blocks, devices } = flatView(bytes, bootstrap)
      if (bytes.length % blockSize !== 0)
        throw new RafsError('BAD_TABLE', `its ${bytes.length} bytes are no whole blocks of ${blockSize}`)
      this.blockSize = blockSize
      this.size = blocks * blockSize
      this.#devices = devices.map((of, index) =>
        deviceOf(image, index, of.startBlock * blockSize, of.blocks * blockSize),
      )
    } catch (error) {
      if (!(error instanceof RafsError)) throw error
      throw new DaemonError('BAD_IMAGE', `${image.request.source} is no disk: ${error.message}`, { cause: error })
    }
  }

  /** Fills `into` on the spot when all of it is at hand. False when `read` must be asked; what was written then means nothing. */
  readNow(offset: number, into: Buffer): boolean {
    const runs = this.#start(offset, into)
    const address = addressOf(into)
    try {
      return runs.every((run) => this.#hot.read(run.spans, run.spans.length, address + run.offset - offset))
    } catch (error) {
      if (error instanceof KernelError) return false // a broken disk: the engine fetches anew
      throw error
    }
  }

  /** Fills `into`; beyond the disk's end with zeros. Throws EngineError, at the latest after the configured deadline. */
  async read(offset: number, into: Buffer, signal: AbortSignal): Promise<void> {
    await Promise.all(
      this.#start(offset, into).map(async (run) => {
        const part = into.subarray(run.offset - offset, run.offset - offset + run.length)
        await this.#image.reader.read(run.spans, run.spans.length, part, signal)
      }),
    )
  }

  /** Undefined when the image has no such blob, or it is a plain tar, of which nothing tells the chunks. */
  blob(id: string): DiskBlob | undefined {
    const { blobs } = this.#image.loaded.bootstrap
    const device = this.#devices.find(({ blobIndex }) => blobs[blobIndex]?.id === id)
    const info = device === undefined ? undefined : blobs[device.blobIndex]
    if (device?.chunks === undefined || info === undefined) return undefined
    const { start, chunks } = device
    return { start, size: info.uncompressedSize, chunks: (range) => wholeChunks(chunks, range) }
  }

  /** Brings a range, whole pages, and tells where it is then. Throws EngineError. */
  async pieces(range: DiskRange, signal: AbortSignal): Promise<DiskPieces> {
    const map = this.#startMap(range)
    for (const device of this.#devices) {
      const runs = runsOf(device, range)
      const missing = runs.flatMap(({ spans }) => spans).filter((span) => !this.#isInFile(device, span))
      if (missing.length > 0) await this.#bring(missing, signal)
      for (const run of runs) this.#mark(map, device, run)
    }
    return map.pieces()
  }

  /** What of a range is at hand in files, without fetching anything. */
  piecesNow(range: DiskRange): DiskPieces {
    const map = this.#startMap(range)
    for (const device of this.#devices)
      for (const run of runsOf(device, range)) {
        if (run.spans.every((span) => this.#isInFile(device, span))) this.#mark(map, device, run)
        else map.mark(run, undefined)
      }
    return map.pieces()
  }

  close(): void {
    for (const fd of this.#files.values()) closeSync(fd)
    this.#files.clear()
  }

  /** Everything of a read but the blobs' data. */
  #start(offset: number, into: Buffer): Run[] {
    const { bytes } = this.#image.loaded
    into.fill(0)
    if (offset < bytes.length) into.set(bytes.subarray(offset, offset + into.length))
    return this.#devices.flatMap((device) => runsOf(device, { offset, length: into.length }))
  }

  #startMap(range: DiskRange): PageMap {
    const map = new PageMap(range)
    const length = Math.min(this.#image.loaded.bytes.length, range.offset + range.length) - range.offset
    if (length > 0) map.mark({ offset: range.offset, length }, { fd: this.#bootstrapFile(), start: 0 })
    return map
  }

  #mark(map: PageMap, device: Device, run: Run): void {
    const isInFile = run.spans.every((span) => this.#isInFile(device, span))
    map.mark(run, isInFile ? this.#placeOf(device) : undefined)
    const end = run.offset + run.length
    // A tar may go on where the disk does not.
    if (device.chunks === undefined && end % PAGE !== 0) map.mark({ offset: end - 1, length: 1 }, undefined)
  }

  /** Fetches and verifies chunks: a byte of each is enough for that. */
  async #bring(spans: readonly ChunkSpan[], signal: AbortSignal): Promise<void> {
    const firsts = spans.map((span) => Object.assign(new ChunkSpan(), span, { length: 1 }))
    await this.#image.reader.read(firsts, firsts.length, Buffer.alloc(firsts.length), signal)
  }

  #isInFile({ blobIndex }: Device, span: ChunkSpan): boolean {
    const blob = this.#image.reader.hot.blobs[blobIndex]
    if (blob === undefined || blob.dataFd < 0) return false
    const { chunks } = blob
    if (chunks === undefined) return true
    return chunks.trusted[span.chunkIndex] === 1 && chunks.offsets[span.chunkIndex] === span.chunkOffset
  }

  #placeOf({ blobIndex, start }: Device): Place {
    const dataFd = this.#image.reader.hot.blobs[blobIndex]?.dataFd ?? -1
    // For reading only: whoever gets it must not write into the cache.
    return { fd: this.#file(blobIndex, () => openSync(`/proc/self/fd/${dataFd}`, 'r')), start }
  }

  #bootstrapFile(): number {
    return this.#file(-1, () => sealedFile('bootstrap', this.#image.loaded.bytes))
  }

  #file(of: number, open: () => number): number {
    const fd = this.#files.get(of) ?? open()
    this.#files.set(of, fd)
    return fd
  }
}

function deviceOf(image: MountedImage, blobIndex: number, start: number, length: number): Device {
  const { bootstrap } = image.loaded
  const blob = bootstrap.blobs[blobIndex]
  const isTar = blob !== undefined && (blob.features & BLOB_FEATURES.TARFS) !== 0
  return {
    blobIndex,
    start,
    end: start + length,
    chunks: isTar ? undefined : chunksOf(image, blobIndex, length),
    tarEnd: start + Math.min(length, blob?.compressedSize ?? 0),
  }
}

/** Throws RafsError 'BAD_TABLE' for chunks that lie in each other or outside of the blob's place. */
function chunksOf({ loaded: { bootstrap } }: MountedImage, blobIndex: number, length: number): Chunks {
  const layout = bootstrap.layout(blobIndex)
  const found: Array<readonly [start: number, size: number, index: number]> = []
  const info = new ChunkInfo()
  for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
    layout.chunk(index, info)
    found.push([info.uncompressedOffset, info.uncompressedSize, index])
  }
  found.sort((a, b) => a[0] - b[0])
  let end = 0
  for (const [start, size, index] of found) {
    if (start < end || start + size > length)
      throw new RafsError(
        'BAD_TABLE',
        `chunk ${index} of blob ${blobIndex} lies outside its place; the image is damaged or crafted`,
      )
    end = start + size
  }
  return {
    count: found.length,
    starts: Float64Array.from(found, ([start]) => start),
    sizes: Uint32Array.from(found, ([, size]) => size),
    indexes: Uint32Array.from(found, ([, , index]) => index),
  }
}

/** The data of a device in a range of the disk. */
function runsOf(device: Device, range: DiskRange): Run[] {
  const from = Math.max(range.offset, device.start)
  const to = Math.min(range.offset + range.length, device.end)
  if (from >= to) return []
  const { chunks } = device
  return chunks === undefined ? tarRuns(device, from, to) : chunkRuns(device, chunks, from, to)
}

function tarRuns(device: Device, from: number, to: number): Run[] {
  const length = Math.min(to, device.tarEnd) - from
  if (length <= 0) return []
  return [{ offset: from, length, spans: [spanOf(device.blobIndex, 0, 0, from - device.start, length)] }]
}

function chunkRuns(device: Device, chunks: Chunks, from: number, to: number): Run[] {
  const runs: Run[] = []
  for (let at = firstEndingAfter(chunks, from - device.start); at < chunks.count; at++) {
    const [start, size] = [chunks.starts[at] ?? 0, chunks.sizes[at] ?? 0]
    const [first, end] = [Math.max(from, device.start + start), Math.min(to, device.start + start + size)]
    if (first >= to) break
    const span = spanOf(device.blobIndex, chunks.indexes[at] ?? 0, start, first - device.start - start, end - first)
    const last = runs.at(-1)
    if (last !== undefined && last.offset + last.length === first) {
      last.spans.push(span)
      last.length += end - first
    } else runs.push({ offset: first, length: end - first, spans: [span] })
  }
  return runs
}

function wholeChunks(chunks: Chunks, { offset, length }: DiskRange): DiskRange[] {
  const found: DiskRange[] = []
  for (let at = firstEndingAfter(chunks, offset); at < chunks.count; at++) {
    const start = chunks.starts[at] ?? 0
    if (start >= offset + length) break
    found.push({ offset: start, length: chunks.sizes[at] ?? 0 })
  }
  return found
}

function firstEndingAfter({ count, starts, sizes }: Chunks, offset: number): number {
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((starts[middle] ?? 0) + (sizes[middle] ?? 0) <= offset) low = middle + 1
    else high = middle
  }
  return low
}

function spanOf(blobIndex: number, chunkIndex: number, chunkOffset: number, offsetInChunk: number, length: number) {
  return Object.assign(new ChunkSpan(), { blobIndex, chunkIndex, chunkOffset, offsetInChunk, length })
}
