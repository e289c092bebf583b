import { type BigIntStats, closeSync, constants, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, checkBlobId, checkRange, fileFailure } from './errors.ts'
import { type BlobPartition, readBlobPartitions } from './gpt.ts'

/** A disk of blobs. */
export interface LocaldiskOptions {
  /** A block device, or a file that holds what one would. */
  readonly devicePath: string
  /** The disk has no partition table: all of it is the one blob, whatever its id. */
  readonly isWhole: boolean
}

/** A part of the disk that is a blob. */
type Extent = Pick<BlobPartition, 'offset' | 'length'>

const NEVER = { retryable: false } as const
/** O_NONBLOCK: a FIFO in the disk's place would hang the open for ever. */
const FLAGS = constants.O_RDONLY | constants.O_NONBLOCK
/** Ids of older disks were cut to so many characters. */
const SHORT_ID = 32
/** Bytes of one positional read: between two the signal is looked at, and the reader is told how far it is. */
const PIECE_BYTES = 1 << 20
const SYSFS_SECTOR = 512

/**
 * Blobs as partitions of a disk (docs/formats/gpt.md). The partition table is read at once, so that a disk that cannot be used is known before anything is mounted.
 * Throws 'BAD_OPTION', 'NOT_FOUND', 'FORBIDDEN' or 'IO'.
 */
export function localdiskBackend(options: LocaldiskOptions): Backend {
  const { devicePath: path } = options
  if (path === '') throw new BackendError('BAD_OPTION', 'cannot use backend localdisk: its "device_path" is empty')
  let fd: number | undefined
  try {
    fd = openSync(path, FLAGS)
    const identity = fstatSync(fd, { bigint: true })
    const size = sizeOf(path, identity)
    const read = (offset: number, length: number): Uint8Array => readWhole(path, fd ?? -1, offset, length)
    const partitions = options.isWhole ? undefined : readBlobPartitions({ path, size, read })
    return new LocaldiskBackend({ path, identity, size, partitions })
  } catch (error) {
    throw fileFailure(`use disk ${path}`, error)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function readWhole(path: string, fd: number, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let filled = 0; filled < length; ) {
    const got = readSync(fd, bytes, filled, length - filled, offset + filled)
    if (got === 0) throw new BackendError('IO', `cannot use disk ${path}: it ends at ${offset + filled}`, NEVER)
    filled += got
  }
  return bytes
}

/** Bytes of a file, or of a block device, whose own size says 0. */
function sizeOf(path: string, info: BigIntStats): number {
  if (info.isFile()) return Number(info.size)
  if (!info.isBlockDevice())
    throw new BackendError('IO', `cannot use disk ${path}: it is neither a file nor a block device`, NEVER)
  const major = ((info.rdev >> 8n) & 0xfffn) | ((info.rdev >> 32n) & ~0xfffn)
  const minor = (info.rdev & 0xffn) | ((info.rdev >> 12n) & ~0xffn)
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * SYSFS_SECTOR
}

interface DiskParts {
  readonly path: string
  readonly identity: BigIntStats
  readonly size: number
  /** Undefined: the whole disk is one blob. */
  readonly partitions: readonly BlobPartition[] | undefined
}

class LocaldiskBackend implements Backend {
  readonly name = 'localdisk'
  readonly #disk: DiskParts
  readonly #byId: ReadonlyMap<string, BlobPartition>
  readonly #readers = new Set<PartitionReader>()
  #closed = false

  constructor(disk: DiskParts) {
    this.#disk = disk
    this.#byId = new Map(disk.partitions?.map((partition) => [partition.blobId, partition]))
  }

  async open(blobId: string): Promise<BlobReader> {
    this.#check(blobId)
    const extent = this.#extentOf(blobId)
    const file = await this.#openDisk(blobId)
    const reader = new PartitionReader({ file, extent, blobId, onClose: (ended) => this.#readers.delete(ended) })
    this.#readers.add(reader)
    if (this.#closed) await reader.close()
    this.#check(blobId)
    return reader
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#readers].map((reader) => reader.close()))
  }

  #extentOf(blobId: string): Extent {
    checkBlobId(blobId)
    const { path, partitions, size } = this.#disk
    if (partitions === undefined) return { offset: 0, length: size }
    const whole = this.#byId.get(blobId)
    if (whole !== undefined) return whole
    const short = this.#byId.get(blobId.slice(0, SHORT_ID))
    if (short?.isShortened === true) return short
    throw new BackendError('NOT_FOUND', `cannot open blob ${blobId}: no partition of ${path} is called so`)
  }

  /** Another disk may have taken the path since its table was read. */
  async #openDisk(blobId: string): Promise<FileHandle> {
    const { path, identity } = this.#disk
    let file: FileHandle | undefined
    try {
      file = await open(path, FLAGS)
      const { dev, ino, rdev } = await file.stat({ bigint: true })
      if (dev === identity.dev && ino === identity.ino && rdev === identity.rdev) return file
      throw new BackendError('IO', `cannot open blob ${blobId}: ${path} is another disk by now; mount anew`, NEVER)
    } catch (error) {
      await file?.close()
      throw fileFailure(`open blob ${blobId}`, error)
    }
  }

  #check(blobId: string): void {
    if (this.#closed) throw new BackendError('CLOSED', `cannot open blob ${blobId}: the backend was closed`)
  }
}

interface ReaderParts {
  readonly file: FileHandle
  readonly extent: Extent
  readonly blobId: string
  readonly onClose: (reader: PartitionReader) => void
}

class PartitionReader implements BlobReader {
  readonly #parts: ReaderParts
  #closing: Promise<void> | undefined

  constructor(parts: ReaderParts) {
    this.#parts = parts
  }

  /** The partition's: the blob in it may be shorter. */
  async size(signal: AbortSignal): Promise<number> {
    this.#check(`find the size of blob ${this.#parts.blobId}`, signal)
    return this.#parts.extent.length
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const { blobId, extent, file } = this.#parts
    const what = `read ${into.length} bytes at ${compressedOffset} of blob ${blobId}`
    checkRange(what, compressedOffset, into.length)
    this.#check(what, options.signal)
    if (compressedOffset + into.length > extent.length)
      throw new BackendError('TRUNCATED', `cannot ${what}: its partition has ${extent.length} bytes`, NEVER)
    for (let filled = 0; filled < into.length; ) {
      const wanted = Math.min(PIECE_BYTES, into.length - filled)
      const at = extent.offset + compressedOffset + filled
      const { bytesRead } = await file.read(into, filled, wanted, at).catch((error: unknown) => {
        this.#check(what, options.signal)
        throw fileFailure(what, error)
      })
      if (bytesRead === 0) throw new BackendError('TRUNCATED', `cannot ${what}: the disk ends at ${at}`, NEVER)
      filled += bytesRead
      options.onFilled?.(filled)
      if (filled < into.length) this.#check(what, options.signal)
    }
  }

  close(): Promise<void> {
    // `FileHandle.close` waits for the reads that are under way.
    this.#closing ??= this.#parts.file.close().finally(() => this.#parts.onClose(this))
    return this.#closing
  }

  #check(what: string, signal: AbortSignal): void {
    if (this.#closing !== undefined) throw new BackendError('CLOSED', `cannot ${what}: it was closed`)
    if (signal.aborted) throw abortedRead(what, signal)
  }
}
