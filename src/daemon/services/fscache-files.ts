import { addressOf } from '../../kernel/vm/index.ts'
import { DaemonError } from '../errors.ts'
import type { BlobRegistry } from './blob-registry.ts'
import { readDisk } from './disk-read.ts'
import type { DiskBlob } from './image-disk.ts'
import { type DiskSource, type OpenDisk, openDisk } from './open-disk.ts'
import { type DiskRange, PAGE } from './page-map.ts'

/** Takes whole pages of a file; their memory is aligned like pages. */
export type TakePages = (offset: number, bytes: Buffer) => Promise<void>

/** A file of the kernel's cache, as far as an image has it. The one who opened it closes it. */
export interface CacheFile {
  /** Bytes. */
  readonly size: number
  /** Hands over what there is of a range, and of chunks that are partly in it. Throws EngineError, DaemonError, or what `take` throws. */
  bring(range: DiskRange, take: TakePages, signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

/** What is brought at once. */
const PIECE_BYTES = 2 << 20

interface Shared {
  readonly opened: Promise<OpenDisk>
  users: number
}

/** Opens registered bootstraps and blobs as files; an image is open once, as long as a file of it is. */
export class CacheFiles {
  readonly #registry: BlobRegistry
  readonly #images = new Map<DiskSource, Shared>()

  constructor(registry: BlobRegistry) {
    this.#registry = registry
  }

  /** Undefined when nothing of that key (`domain/id`) is registered. Throws DaemonError. */
  async open(key: string): Promise<CacheFile | undefined> {
    const bootstrap = this.#registry.bootstrap(key)
    if (bootstrap !== undefined) {
      const { bootstrap: bytes } = await this.acquire(bootstrap)
      return bootstrapFile(bytes, () => this.release(bootstrap))
    }
    const [first] = this.#registry.usersOf(key)
    if (first === undefined) return undefined
    const file = new BlobFile(key, this.#registry, this)
    try {
      return await file.start(first)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** An image, to be released once. Throws DaemonError. */
  async acquire(source: DiskSource): Promise<OpenDisk> {
    const shared = this.#images.get(source) ?? { opened: openDisk(source), users: 0 }
    this.#images.set(source, shared)
    shared.users += 1
    try {
      return await shared.opened
    } catch (error) {
      if (this.#images.get(source) === shared) this.#images.delete(source) // the next one tries again
      throw error
    }
  }

  async release(source: DiskSource): Promise<void> {
    const shared = this.#images.get(source)
    if (shared === undefined || --shared.users > 0) return
    this.#images.delete(source)
    await (await shared.opened).close()
  }
}

function bootstrapFile(bytes: Uint8Array, close: () => Promise<void>): CacheFile {
  const bring = async ({ offset, length }: DiskRange, take: TakePages): Promise<void> => {
    const end = Math.min(offset + length, bytes.length)
    for (let at = offset; at < end; at += PIECE_BYTES) {
      const part = bytes.subarray(at, Math.min(at + PIECE_BYTES, end))
      const pages = alignedBuffer(roundUp(part.length)).fill(0)
      pages.set(part)
      await take(at, pages)
    }
  }
  return { size: bytes.length, bring, close }
}

/** A blob: images that share it may each know other chunks of it. */
class BlobFile implements CacheFile {
  size = 0
  readonly #key: string
  readonly #registry: BlobRegistry
  readonly #files: CacheFiles
  readonly #images = new Map<DiskSource, OpenDisk>()
  #isClosed = false

  constructor(key: string, registry: BlobRegistry, files: CacheFiles) {
    this.#key = key
    this.#registry = registry
    this.#files = files
  }

  async start(source: DiskSource): Promise<this> {
    const blob = this.#blobOf(await this.#image(source))
    if (blob === undefined)
      throw new DaemonError('UNSUPPORTED', `cannot serve ${this.#key} as a file: it is a plain tar; use another driver`)
    this.size = blob.size
    return this
  }

  /** What no image says anything of stays a hole: its reader gets EIO. */
  async bring(range: DiskRange, take: TakePages, signal: AbortSignal): Promise<void> {
    const sources = new Set([...this.#images.keys(), ...this.#registry.usersOf(this.#key)])
    for (const source of sources) {
      const image = await this.#image(source)
      const blob = this.#blobOf(image)
      if (blob === undefined) continue
      const runs = joined(blob.chunks(range))
      for (const { offset, length } of runs)
        await take(offset, await readDisk(image.disk, { offset: blob.start + offset, length }, signal, alignedBuffer))
      if (isCovered(range, runs, this.size)) return
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const sources = [...this.#images.keys()]
    this.#images.clear()
    for (const source of sources) await this.#files.release(source)
  }

  #blobOf({ disk }: OpenDisk): DiskBlob | undefined {
    return disk.blob(this.#key.slice(this.#key.lastIndexOf('/') + 1))
  }

  async #image(source: DiskSource): Promise<OpenDisk> {
    const known = this.#images.get(source)
    if (known !== undefined) return known
    const image = await this.#files.acquire(source)
    // Another read may have brought it meanwhile, or the file was closed.
    if (this.#isClosed || this.#images.has(source)) await this.#files.release(source)
    else this.#images.set(source, image)
    return image
  }
}

/** Whole pages of chunks that follow each other, in pieces; the rest of a last page has no bytes of the blob. */
function joined(chunks: readonly DiskRange[]): DiskRange[] {
  const runs: Array<{ offset: number; length: number }> = []
  for (const chunk of chunks) {
    const last = runs.at(-1)
    const end = chunk.offset + roundUp(chunk.length)
    if (last !== undefined && last.offset + last.length === chunk.offset && end - last.offset <= PIECE_BYTES)
      last.length = end - last.offset
    else runs.push({ offset: chunk.offset, length: end - chunk.offset })
  }
  return runs
}

function isCovered(range: DiskRange, runs: readonly DiskRange[], size: number): boolean {
  let at = range.offset
  for (const run of runs) if (run.offset <= at) at = Math.max(at, run.offset + run.length)
  return at >= Math.min(range.offset + range.length, size)
}

function roundUp(length: number): number {
  return Math.ceil(length / PAGE) * PAGE
}

/** The kernel's cache writes past its page cache, which wants memory aligned like pages. */
function alignedBuffer(length: number): Buffer {
  const memory = Buffer.allocUnsafeSlow(length + PAGE)
  const from = (PAGE - (addressOf(memory) % PAGE)) % PAGE
  return memory.subarray(from, from + length)
}
