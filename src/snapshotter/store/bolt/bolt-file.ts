/** Reads bolt databases, of which nothing is believed. Source: docs/formats/bolt.md. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { tryLockFile } from '../../../kernel/index.ts'
import { SnapshotterError } from '../../errors.ts'
import { BRANCH, BUCKET, checksum, IS_BUCKET, LEAF, MAGIC, META, PAGE, PAGE_FLAG, VERSION } from './layout.ts'

const MIN_PAGE_SIZE = 1024
const MAX_PAGE_SIZE = 65_536
/** A tree of pages is never so high. */
const MAX_HEIGHT = 32
/** All that is read of one file, in bytes: what 200,000 snapshots take. */
const MAX_READ = 512 * 2 ** 20

/** A bucket whose entries were not read yet. */
export class Bucket {
  readonly sequence: number
  readonly #entries: () => Iterable<BoltEntry>

  constructor(sequence: number, entries: () => Iterable<BoltEntry>) {
    this.sequence = sequence
    this.#entries = entries
  }

  /** By keys, whose characters are bytes. Every bucket can be read once: pages that are reached twice are those of a damaged file. */
  read(): Map<string, Uint8Array | Bucket> {
    const entries = new Map<string, Uint8Array | Bucket>()
    for (const [key, value] of this.#entries()) entries.set(key, value)
    return entries
  }
}

type BoltEntry = readonly [key: string, value: Uint8Array | Bucket]

interface Meta {
  readonly pageSize: number
  readonly root: number
  readonly sequence: number
  readonly highWater: number
  readonly transaction: number
}

/** A database that is read. While it is open, the original cannot open it, as both lock the file. */
export class BoltFile {
  readonly #path: string
  readonly #fd: number
  readonly #size: number
  readonly #meta: Meta
  readonly #seen = new Set<number>()
  #read = 0

  /** Throws SnapshotterError 'LOCKED' when the original has it, 'BAD_STATE' when it is damaged. */
  constructor(path: string) {
    this.#path = path
    this.#fd = openSync(path, 'r')
    try {
      if (!tryLockFile(this.#fd))
        throw new SnapshotterError(
          'LOCKED',
          `another snapshotter has ${path} open; stop it (systemctl stop nydus-snapshotter)`,
        )
      this.#size = fstatSync(this.#fd).size
      this.#meta = this.#newestMeta()
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  /** Changes with every change of the content. */
  get transaction(): number {
    return this.#meta.transaction
  }

  /** The top: its entries are buckets. */
  root(): Bucket {
    const { root, sequence } = this.#meta
    return new Bucket(sequence, () => this.#tree(root, 0))
  }

  close(): void {
    closeSync(this.#fd)
  }

  *#tree(id: number, height: number): Generator<BoltEntry> {
    if (height > MAX_HEIGHT) this.#fail(`more than ${MAX_HEIGHT} pages lie above page ${id}`)
    if (this.#seen.has(id)) this.#fail(`page ${id} is reached twice`)
    this.#seen.add(id)
    const page = this.#page(id)
    const flags = page.readUInt16LE(PAGE.flags)
    if (flags === PAGE_FLAG.leaf) yield* this.#leaf(page, `page ${id}`)
    else if (flags === PAGE_FLAG.branch)
      for (const child of this.#children(page, id)) yield* this.#tree(child, height + 1)
    else this.#fail(`page ${id} has flags ${flags}, neither a leaf nor a branch`)
  }

  #children(page: Buffer, id: number): number[] {
    const count = page.readUInt16LE(PAGE.count)
    if (PAGE.size + count * BRANCH.size > page.length) this.#fail(`page ${id} has ${count} branches, more than fit`)
    return Array.from({ length: count }, (_, i) => this.#number(page, PAGE.size + i * BRANCH.size + BRANCH.page))
  }

  *#leaf(page: Buffer, where: string): Generator<BoltEntry> {
    const count = page.readUInt16LE(PAGE.count)
    if (PAGE.size + count * LEAF.size > page.length) this.#fail(`${where} has ${count} entries, more than fit`)
    for (let i = 0; i < count; i += 1) {
      const at = PAGE.size + i * LEAF.size
      const from = at + page.readUInt32LE(at + LEAF.position)
      const middle = from + page.readUInt32LE(at + LEAF.keySize)
      const end = middle + page.readUInt32LE(at + LEAF.valueSize)
      if (end > page.length) this.#fail(`entry ${i} of ${where} goes past the end`)
      const key = page.toString('latin1', from, middle)
      const value = page.subarray(middle, end)
      yield [key, page.readUInt32LE(at + LEAF.flags) & IS_BUCKET ? this.#bucket(value, where) : value]
    }
  }

  #bucket(value: Buffer, where: string): Bucket {
    if (value.length < BUCKET.size) this.#fail(`a bucket of ${where} has ${value.length} bytes`)
    const root = this.#number(value, BUCKET.root)
    const sequence = this.#number(value, BUCKET.sequence)
    if (root !== 0) return new Bucket(sequence, () => this.#tree(root, 0))
    const inline = value.subarray(BUCKET.size)
    if (inline.length < PAGE.size || inline.readUInt16LE(PAGE.flags) !== PAGE_FLAG.leaf)
      this.#fail(`a bucket inside ${where} is no page`)
    return new Bucket(sequence, () => this.#leaf(inline, `a bucket inside ${where}`))
  }

  #page(id: number): Buffer {
    const { pageSize, highWater } = this.#meta
    if (id < 2 || id >= highWater) this.#fail(`page ${id} is not between 2 and ${highWater}`)
    const overflow = this.#bytes(id * pageSize, PAGE.size).readUInt32LE(PAGE.overflow)
    if (id + overflow >= highWater) this.#fail(`page ${id} goes on past the last page`)
    const page = this.#bytes(id * pageSize, (overflow + 1) * pageSize)
    if (this.#number(page, PAGE.id) !== id) this.#fail(`page ${id} says it is another one`)
    return page
  }

  /** A torn write leaves one of the two whole. */
  #newestMeta(): Meta {
    const metas = this.#metaPlaces().flatMap((at) => this.#metaAt(at) ?? [])
    const [newest] = metas.sort((a, b) => b.transaction - a.transaction)
    return newest ?? this.#fail('neither of its two heads is whole')
  }

  /** The second one lies a page after the first, whose size only they tell. */
  #metaPlaces(): number[] {
    const places = [0]
    for (let at = MIN_PAGE_SIZE; at <= MAX_PAGE_SIZE; at *= 2) places.push(at)
    return places.filter((at) => at + PAGE.size + META.size <= this.#size)
  }

  #metaAt(at: number): Meta | undefined {
    const meta = this.#bytes(at, PAGE.size + META.size).subarray(PAGE.size)
    if (meta.readUInt32LE(META.magic) !== MAGIC || meta.readUInt32LE(META.version) !== VERSION) return undefined
    if (meta.readBigUInt64LE(META.checksum) !== checksum(meta.subarray(0, META.checksum))) return undefined
    const pageSize = meta.readUInt32LE(META.pageSize)
    if (at !== 0 && at !== pageSize) return undefined
    if (pageSize < MIN_PAGE_SIZE || pageSize > MAX_PAGE_SIZE || (pageSize & (pageSize - 1)) !== 0)
      this.#fail(`pages of ${pageSize} bytes`)
    return {
      pageSize,
      root: this.#number(meta, META.root),
      sequence: this.#number(meta, META.sequence),
      highWater: this.#number(meta, META.highWater),
      transaction: this.#number(meta, META.transaction),
    }
  }

  #bytes(at: number, size: number): Buffer {
    this.#read += size
    if (this.#read > MAX_READ) this.#fail(`more than ${MAX_READ} bytes are in use`)
    if (at + size > this.#size) this.#fail(`it ends at ${this.#size}, before ${at + size}`)
    const bytes = Buffer.alloc(size)
    for (let done = 0; done < size; ) {
      const count = readSync(this.#fd, bytes, done, size - done, at + done)
      if (count === 0) this.#fail(`it ends before ${at + size}`)
      done += count
    }
    return bytes
  }

  #number(bytes: Buffer, at: number): number {
    const value = bytes.readBigUInt64LE(at)
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : this.#fail(`it has the number ${value}`)
  }

  #fail(why: string): never {
    throw new SnapshotterError(
      'BAD_STATE',
      `the database ${this.#path} is damaged: ${why}; move it away to start without it, and remove this snapshotter's images from containerd`,
    )
  }
}
