import { setImmediate } from 'node:timers/promises'
import {
  BLOB_FEATURES,
  type BlobInfo,
  type BlobLayout,
  ChunkDecoder,
  ChunkInfo,
  openBatchLayout,
  readBatchMeta,
} from '../blob/index.ts'
import { digester } from '../codec/index.ts'
import type { Backend, BlobReader } from '../backend/index.ts'
import {
  Attributes,
  type Bootstrap,
  type ChunkSpan,
  type Ino,
  isDictionary,
  isType,
  listChunks,
  MODE,
  walkBootstrap,
} from '../rafs/index.ts'
import { checkSlices } from './check-slices.ts'
import { shown, toKey } from './image-path.ts'
import { StoredRuns } from './stored-runs.ts'

/** One thing that is wrong with an image. */
export interface CheckFinding {
  /** What it is about. */
  readonly part: 'tree' | 'inode' | 'chunks' | 'prefetch' | 'blob'
  /** Path in the image, or the blob's id. */
  readonly object: string
  readonly message: string
}

/**
 * Everything that is wrong with an image's metadata, not the first thing: each inode, each chunk of each file, link counts, the prefetch table. Throws nothing for a
 * damaged image; a damaged directory hides what lies below it.
 */
export function* checkBootstrap(image: Bootstrap): Generator<CheckFinding> {
  const state = new TreeCheck(image)
  try {
    for (const { path, ino } of walkBootstrap(image)) yield* state.check(toKey(path), ino)
  } catch (error) {
    yield { part: 'tree', object: '/', message: messageOf(error) }
    return
  }
  yield* state.finish()
}

/** How a check of a tree that may be large goes on. */
export interface CheckRun {
  readonly signal: AbortSignal
  /** Told of each path. */
  readonly onPath: () => void
}

/** The event loop gets its turn after so many paths. */
const PATHS_AT_ONCE = 4096

/** The same, with a turn for signals now and then. Throws the signal's reason. */
export async function* checkTree(image: Bootstrap, { signal, onPath }: CheckRun): AsyncGenerator<CheckFinding> {
  const state = new TreeCheck(image)
  let count = 0
  try {
    for (const { path, ino } of walkBootstrap(image)) {
      for (const finding of state.check(toKey(path), ino)) yield finding // without a promise for each path
      onPath()
      count += 1
      if (count % PATHS_AT_ONCE > 0) continue
      await setImmediate()
      signal.throwIfAborted()
    }
  } catch (error) {
    signal.throwIfAborted()
    yield { part: 'tree', object: '/', message: messageOf(error) }
    return
  }
  yield* state.finish()
}

/**
 * Reads every chunk of every blob and compares its digest; `onBytes` is told what was read. Blobs are read once, front to back, a few MiB at a time. What no file uses has no record in some images and is
 * not looked at.
 */
export async function* checkBlobs(
  image: Bootstrap,
  backend: Backend,
  signal: AbortSignal,
  onBytes: (storedBytes: number) => void = () => undefined,
): AsyncGenerator<CheckFinding> {
  for (const blob of image.blobs) {
    const bad = (message: string): CheckFinding => ({ part: 'blob', object: blob.id, message })
    if ((blob.features & BLOB_FEATURES.EXTERNAL) !== 0) {
      yield bad('its data is external, which this version cannot verify')
      continue
    }
    if ((blob.features & BLOB_FEATURES.ZRAN) !== 0) {
      try {
        for await (const message of checkSlices(image, blob, backend, { signal, onBytes })) yield bad(message)
      } catch (error) {
        signal.throwIfAborted()
        yield bad(messageOf(error))
      }
      continue
    }
    let reader: BlobReader
    try {
      reader = await backend.open(blob.id)
    } catch (error) {
      yield bad(messageOf(error))
      continue
    }
    try {
      if (image.isTarfs) yield* checkTar(blob, reader, signal)
      else yield* checkChunks(image, blob, reader, { signal, onBytes })
    } catch (error) {
      signal.throwIfAborted()
      yield bad(messageOf(error))
    } finally {
      await reader.close()
    }
  }
}

/** A plain tar has no digests: it can be there and have its size, and the blob's id may be the digest of another form of it. */
async function* checkTar(blob: BlobInfo, reader: BlobReader, signal: AbortSignal): AsyncGenerator<CheckFinding> {
  const size = await reader.size(signal)
  if (size >= blob.compressedSize) return
  yield { part: 'blob', object: blob.id, message: `the tar has ${size} bytes, the image wants ${blob.compressedSize}` }
}

/** Reads every chunk of one blob and compares its digest. */
export async function* checkBlob(
  image: Bootstrap,
  blobIndex: number,
  reader: BlobReader,
  signal: AbortSignal,
): AsyncGenerator<CheckFinding> {
  const blob = image.blobs[blobIndex]
  if (blob !== undefined) yield* checkChunks(image, blob, reader, { signal, onBytes: () => undefined })
}

async function* checkChunks(
  image: Bootstrap,
  blob: BlobInfo,
  reader: BlobReader,
  { signal, onBytes }: { readonly signal: AbortSignal; readonly onBytes: (storedBytes: number) => void },
): AsyncGenerator<CheckFinding> {
  const layout = await openLayout(image, blob, reader, signal)
  const decoder = new ChunkDecoder(blob.compression, blob.cipher)
  const digest = digester(blob.digest)
  const found = Buffer.alloc(32)
  const plain = Buffer.allocUnsafe(blob.chunkSize)
  const runs = new StoredRuns(reader, signal, onBytes)
  const size = await reader.size(signal)
  const info = new ChunkInfo()
  for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
    layout.chunk(index, info)
    const end = info.compressedOffset + info.compressedSize
    const bad = (message: string): CheckFinding => ({
      part: 'blob',
      object: blob.id,
      message: `chunk ${index} (bytes ${info.compressedOffset} to ${end}): ${message}`,
    })
    if (end > size) {
      yield bad(`the blob ends at byte ${size}`)
      continue
    }
    const reading = runs.read(info.compressedOffset, info.compressedSize)
    const stored = reading instanceof Promise ? await reading : reading
    const into = plain.subarray(0, info.uncompressedSize)
    try {
      decoder.decode(stored, info.compressedOffset, info, into)
      digest.digest(into, found)
    } catch (error) {
      yield bad(messageOf(error))
      continue
    }
    if (!found.equals(info.digest))
      yield bad(
        `its ${blob.digest} digest is ${found.toString('hex')}, the image wants ${Buffer.from(info.digest).toString('hex')}`,
      )
  }
}

/** Where chunks that share batches are stored, only the blob knows. */
async function openLayout(
  image: Bootstrap,
  blob: BlobInfo,
  reader: BlobReader,
  signal: AbortSignal,
): Promise<BlobLayout> {
  const records = image.layout(blob.index)
  if ((blob.features & BLOB_FEATURES.BATCH) === 0) return records
  return openBatchLayout(
    records,
    await readBatchMeta(blob, (offset, into) => reader.read(offset, into, { signal })),
    blob,
  )
}

/** The walk's memory: link counts and what each directory holds. */
class TreeCheck {
  readonly #image: Bootstrap
  readonly #attributes = new Attributes()
  readonly #info = new ChunkInfo()
  readonly #spans: ChunkSpan[] = []
  readonly #links = new Map<Ino, { readonly path: string; readonly claimed: number; found: number }>()
  readonly #seen = new Set<Ino>()
  #entries = 0

  constructor(image: Bootstrap) {
    this.#image = image
  }

  *check(path: string, ino: Ino): Generator<CheckFinding> {
    this.#entries += 1
    const isNew = !this.#seen.has(ino)
    this.#seen.add(ino)
    const finding = (part: CheckFinding['part'], message: string): CheckFinding => ({
      part,
      object: shown(path),
      message,
    })
    try {
      this.#image.attributes(ino, this.#attributes)
      const { mode, nlink, hasXattrs, size } = this.#attributes
      if (hasXattrs && isNew) this.#image.xattrs(ino)
      if (isType(mode, MODE.DIRECTORY))
        this.#links.set(ino, { path, claimed: nlink, found: 2 + this.#subdirectories(ino) })
      else if (nlink !== 1 || !isNew) {
        // Of the one name of one there is nothing to remember, and nearly all files are so.
        const links = this.#links.get(ino) ?? { path, claimed: nlink, found: nlink === 1 ? 1 : 0 }
        links.found += 1
        this.#links.set(ino, links)
      }
      if (isType(mode, MODE.SYMLINK) && this.#image.readlink(ino).length !== size)
        yield finding('inode', `its target has not the ${size} bytes that its size says`)
      if (isType(mode, MODE.FILE) && isNew && size > 0) yield* this.#chunks(path, ino, size)
    } catch (error) {
      yield finding('inode', messageOf(error))
    }
  }

  *finish(): Generator<CheckFinding> {
    for (const { path, claimed, found } of this.#links.values()) {
      if (claimed !== found)
        yield { part: 'inode', object: shown(path), message: `it says it has ${claimed} links; ${found} were found` }
    }
    // RAFS v5 counts inodes, v6 paths.
    const counted = this.#image.version === 6 ? this.#entries : this.#seen.size
    if (this.#image.inodeCount !== counted)
      yield {
        part: 'tree',
        object: '/',
        message: `the superblock counts ${this.#image.inodeCount} inodes; ${counted} were found`,
      }
    try {
      for (const ino of this.#image.prefetch())
        if (!this.#seen.has(ino))
          yield {
            part: 'prefetch',
            object: String(ino),
            message: 'the prefetch table names an inode that no path leads to',
          }
    } catch (error) {
      yield { part: 'prefetch', object: 'table', message: messageOf(error) }
    }
  }

  #subdirectories(ino: Ino): number {
    let count = 0
    this.#image.list(ino, 0, (_name, _child, type) => {
      if (type === 4) count += 1
      return true
    })
    return count
  }

  *#chunks(path: string, ino: Ino, size: number): Generator<CheckFinding> {
    const { chunkSize } = this.#image
    const finding = (message: string): CheckFinding => ({ part: 'chunks', object: shown(path), message })
    const isListing = isDictionary(this.#image)
    const count = listChunks(this.#image, ino, size, this.#spans)
    const [blobIndex] = this.#spans.slice(0, Math.min(1, count)).map((span) => span.blobIndex)
    const features = this.#image.blobs[blobIndex ?? -1]?.features ?? 0
    // Such a blob has a chunk size of its own; that its chunks cover the file was checked when they were listed.
    const isExternal = (features & BLOB_FEATURES.EXTERNAL) !== 0
    if (!isListing && !isExternal && count !== Math.ceil(size / chunkSize))
      yield finding(`${count} chunks for ${size} bytes`)
    for (let i = 0; i < count; i += 1) {
      const span = this.#spans[i]
      if (span === undefined) break
      if (this.#image.isTarfs) {
        const end = span.chunkOffset + span.length
        const tarSize = this.#image.blobs[span.blobIndex]?.uncompressedSize ?? 0
        if (end > tarSize) yield finding(`chunk ${i} ends at byte ${end} of a tar of ${tarSize}`)
        continue
      }
      const layout = this.#image.layout(span.blobIndex)
      // The table of v6 has one record a digest: of two chunks of a blob that are alike, one has none.
      if (!layout.has(span.chunkIndex)) {
        yield finding(
          `chunk ${i} is number ${span.chunkIndex} of blob ${this.#image.blobs[span.blobIndex]?.id}, of which the image has no record: it cannot be read; build or optimize the image again`,
        )
        continue
      }
      layout.chunk(span.chunkIndex, this.#info)
      const wanted = Math.min(chunkSize, size - i * chunkSize)
      if (!isListing && !isExternal && this.#info.uncompressedSize !== wanted)
        yield finding(`chunk ${i} has ${this.#info.uncompressedSize} bytes where the file needs ${wanted}`)
      if (this.#info.uncompressedOffset !== span.chunkOffset)
        yield finding(
          `chunk ${i} lies at byte ${span.chunkOffset} by the file and at ${this.#info.uncompressedOffset} by the chunk table`,
        )
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
