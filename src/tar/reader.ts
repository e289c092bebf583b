import { type ByteInput, ByteSource } from './byte-source.ts'
import { DEFAULT_LIMITS, type SparseRun, type TarEntry, type TarLimits, type TarType } from './entry.ts'
import { TarError } from './errors.ts'
import { BLOCK, checksumFits, isZeroBlock, numberField, textField } from './header.ts'
import {
  entryOf,
  entrySize,
  GNU_SPARSE,
  isExtension,
  maySparse,
  shortPath,
  storedSize,
  typeOf,
} from './header-entry.ts'
import { emptyPax, parsePax, type PaxRecords } from './pax.ts'
import { readOldGnuSparse, readPaxSparse, type SparseMap } from './sparse.ts'

const NOTHING = new Uint8Array(0)

/** Extensions read so far that the next entry takes. */
interface Pending {
  pax: PaxRecords | undefined
  longPath: Uint8Array | undefined
  longLink: Uint8Array | undefined
}

function nothingPending(): Pending {
  return { pax: undefined, longPath: undefined, longLink: undefined }
}

/**
 * Pulls entries out of an archive, in order. Nothing is read ahead of what is asked for; content that was not read is passed over by the next pull.
 *
 * - Extended headers apply to the next real entry only; global ones (PAX `g`) to all that follow.
 * - Zero blocks between archives (`cat a.tar b.tar`) are passed over. An archive may lack its final zero blocks. Bytes after the final zero blocks that are no header end the
 *   archive, as GNU tar has it.
 * - One reader at a time: `next` and `read` must not overlap.
 *
 * Throws TarError.
 */
export class TarReader {
  readonly #source: ByteInput
  readonly #limits: TarLimits
  readonly #global: PaxRecords = emptyPax()
  #entry: TarEntry | undefined
  #pending: Pending = nothingPending()
  /** Stored bytes of the current entry that were not read, and the padding after them. */
  #storedLeft = 0
  #padding = 0
  /** Position in the file that the entry stands for, and the run that it is in or before. */
  #position = 0
  #run = 0

  constructor(archive: AsyncIterable<Uint8Array> | ByteInput, limits: TarLimits = DEFAULT_LIMITS) {
    this.#source = Symbol.asyncIterator in archive ? new ByteSource(archive) : archive
    this.#limits = limits
  }

  /** The next entry; undefined at the end of the archive. At once, without a promise, when it lies whole in the bytes at hand: most small files do. */
  next(): Promise<TarEntry | undefined> | TarEntry | undefined {
    return this.#nextNow() ?? this.#nextLater()
  }

  /** Undefined, and all as it was, when more bytes are needed or anything is unusual. */
  #nextNow(): TarEntry | undefined {
    const source = this.#source
    let header: Uint8Array | undefined
    if (this.#entry !== undefined) {
      // Together with the header behind it: asking twice costs as much as reading.
      const left = this.#storedLeft + this.#padding
      header = source.takeNow(left + BLOCK)?.subarray(left)
      if (header === undefined && source.takeNow(left) === undefined) return undefined
      this.#entry = undefined
    }
    for (;;) {
      header ??= source.takeNow(BLOCK)
      if (header === undefined) return undefined
      const archiveOffset = source.position - BLOCK
      if (header[0] === 0 || !checksumFits(header)) {
        source.putBack(BLOCK)
        return undefined
      }
      if (isExtension(header)) {
        const size = this.#extensionSize(header, archiveOffset)
        const body = source.takeNow(size + padding(size))
        if (body === undefined) {
          source.putBack(BLOCK)
          return undefined
        }
        this.#extend(header, body.slice(0, size), archiveOffset)
        header = undefined
        continue
      }
      const pax = this.#paxNow()
      if (typeOf(header) === 'file' && maySparse(header, pax)) {
        source.putBack(BLOCK)
        return undefined
      }
      return this.#complete(header, pax, undefined, archiveOffset)
    }
  }

  async #nextLater(): Promise<TarEntry | undefined> {
    await this.#passOver()
    let zeroBlocks = 0
    for (;;) {
      const archiveOffset = this.#source.position
      const header = this.#source.takeNow(BLOCK) ?? (await this.#source.take(BLOCK))
      const { pax, longPath } = this.#pending
      if (header.length === 0 && pax === undefined && longPath === undefined) return undefined
      if (header.length < BLOCK) {
        if (zeroBlocks > 0) return undefined
        throw new TarError('TRUNCATED', archiveOffset, `${header.length} bytes where a header of ${BLOCK} belongs`)
      }
      if (isZeroBlock(header)) {
        zeroBlocks++
        if (zeroBlocks * BLOCK > this.#limits.zeroBytes)
          throw new TarError(
            'LIMIT',
            archiveOffset,
            `more than ${this.#limits.zeroBytes} bytes of zeros where entries belong`,
          )
        continue
      }
      if (!checksumFits(header)) {
        if (zeroBlocks > 0) return undefined
        throw new TarError(
          'BAD_CHECKSUM',
          archiveOffset,
          'the header has a wrong checksum; it is not a tar, or damaged',
        )
      }
      // A copy: what extends it is read over the piece that it lies in.
      const kept = header.slice()
      if (isExtension(kept)) {
        const size = this.#extensionSize(kept, archiveOffset)
        const body = (await this.#source.take(size + padding(size))).slice(0, size)
        if (body.length < size) throw new TarError('TRUNCATED', archiveOffset, 'it ends within an extended header')
        this.#extend(kept, body, archiveOffset)
        continue
      }
      const pending = this.#paxNow()
      const sparse = typeOf(kept) === 'file' ? await this.#sparseMap(kept, pending, archiveOffset) : undefined
      return this.#complete(kept, pending, sparse, archiveOffset)
    }
  }

  /** Bytes of the archive taken so far: where the content of an entry starts that was just pulled, and is not sparse. */
  get position(): number {
    return this.#source.position
  }

  /** Fills `into` with the entry's content from where the last read ended, holes as zeros; gives the bytes written, fewer only at its end. At once when they are at hand. */
  read(into: Uint8Array): Promise<number> | number {
    const entry = this.#entry
    if (entry === undefined) return 0
    if (entry.sparse !== undefined || into.length > entry.size - this.#position) return this.#readLater(entry, into, 0)
    const filled = this.#source.readNow(into)
    this.#storedLeft -= filled
    this.#position += filled
    return filled === into.length ? filled : this.#readLater(entry, into, filled)
  }

  /** Fills the rest of `into`. */
  async #readLater(entry: TarEntry, into: Uint8Array, filledBefore: number): Promise<number> {
    let filled = filledBefore
    const wanted = filled + Math.min(into.length - filled, entry.size - this.#position)
    while (filled < wanted) {
      const hole = Math.min(wanted - filled, this.#holeLength(entry))
      if (hole > 0) {
        into.fill(0, filled, filled + hole)
        this.#position += hole
        filled += hole
        continue
      }
      const part = Math.min(wanted - filled, this.#runLeft(entry))
      const got = await this.#source.read(into.subarray(filled, filled + part))
      if (got < part)
        throw new TarError('TRUNCATED', entry.archiveOffset, `it ends within the content of ${display(entry.path)}`)
      this.#storedLeft -= part
      this.#position += part
      filled += part
    }
    return filled
  }

  /** Length of the hole at the current position of the content; 0 when data is next. */
  holeAhead(): number {
    return this.#entry === undefined ? 0 : this.#holeLength(this.#entry)
  }

  /** Passes over zeros that {@link holeAhead} told of, without making them. */
  skipHole(length: number): void {
    if (length > this.holeAhead()) throw new RangeError(`a hole of ${this.holeAhead()} bytes is ahead, not ${length}`)
    this.#position += length
  }

  /** Nothing more is wanted from the archive. */
  async close(): Promise<void> {
    await this.#source.close()
  }

  #holeLength(entry: TarEntry): number {
    if (entry.sparse === undefined) return 0
    this.#advanceRun(entry.sparse)
    const run = entry.sparse[this.#run]
    return (run === undefined ? entry.size : Math.max(run.offset, this.#position)) - this.#position
  }

  #runLeft(entry: TarEntry): number {
    if (entry.sparse === undefined) return entry.size - this.#position
    this.#advanceRun(entry.sparse)
    const run = entry.sparse[this.#run]
    return run === undefined ? 0 : run.offset + run.length - this.#position
  }

  #advanceRun(runs: readonly SparseRun[]): void {
    for (
      let run = runs[this.#run];
      run !== undefined && run.offset + run.length <= this.#position;
      run = runs[++this.#run]
    );
  }

  async #passOver(): Promise<void> {
    const entry = this.#entry
    this.#entry = undefined
    if (entry === undefined) return
    const left = this.#storedLeft + this.#padding
    if (this.#source.takeNow(left) !== undefined) return
    const skipped = await this.#source.skip(left)
    // Some archivers leave out the padding of the very last file.
    if (skipped < this.#storedLeft)
      throw new TarError('TRUNCATED', entry.archiveOffset, `it ends within the content of ${display(entry.path)}`)
  }

  #extensionSize(header: Uint8Array, archiveOffset: number): number {
    const size = numberField(header, 'size', archiveOffset)
    if (size >= 0 && size <= this.#limits.extensionBytes) return size
    throw new TarError(
      'LIMIT',
      archiveOffset,
      `an extended header of ${size} bytes; ${this.#limits.extensionBytes} are allowed`,
    )
  }

  /** Keeps what a header says of the entries that follow. */
  #extend(header: Uint8Array, body: Uint8Array, archiveOffset: number): void {
    const pending = this.#pending
    const type = header[156]
    if (type === 0x4c) pending.longPath = upToNul(body)
    else if (type === 0x4b) pending.longLink = upToNul(body)
    else if (type === 0x67) parsePax(body, this.#global, archiveOffset)
    else parsePax(body, (pending.pax ??= emptyPax()), archiveOffset)
  }

  /** The records that the next entry takes. */
  #paxNow(): PaxRecords {
    return this.#pending.pax === undefined ? this.#global : merged(this.#global, this.#pending.pax)
  }

  /** Makes the entry the current one; it takes what was pending. */
  #complete(header: Uint8Array, pax: PaxRecords, sparse: SparseMap | undefined, archiveOffset: number): TarEntry {
    const pending = this.#pending
    this.#pending = nothingPending()
    const type = typeOf(header)
    const size = entrySize(header, pax, archiveOffset)
    this.#storedLeft = storedSize(header, size) - (sparse?.mapBytes ?? 0)
    this.#padding = padding(storedSize(header, size))
    this.#position = 0
    this.#run = 0
    const path = this.#path(header, pax, pending, archiveOffset)
    // Before POSIX, a directory was a file whose name ends with a slash.
    const isV7Directory = type === 'file' && header[156] === 0 && path.at(-1) === 0x2f
    this.#entry = entryOf(
      header,
      pax,
      {
        path,
        type: isV7Directory ? 'directory' : type,
        link: this.#link(header, pax, pending, type, archiveOffset),
        size: type === 'file' && !isV7Directory ? (sparse?.realSize ?? size) : 0,
        sparse: sparse?.runs,
      },
      archiveOffset,
    )
    return this.#entry
  }

  async #sparseMap(header: Uint8Array, pax: PaxRecords, archiveOffset: number): Promise<SparseMap | undefined> {
    const stored = entrySize(header, pax, archiveOffset)
    return header[156] === GNU_SPARSE
      ? await readOldGnuSparse(header, this.#source, stored, this.#limits, archiveOffset)
      : await readPaxSparse(pax, this.#source, stored, this.#limits, archiveOffset)
  }

  #path(header: Uint8Array, pax: PaxRecords, pending: Pending, archiveOffset: number): Uint8Array {
    const long = pax.values.get('GNU.sparse.name') ?? pax.values.get('path') ?? pending.longPath
    return this.#bounded(long ?? shortPath(header), archiveOffset)
  }

  #link(header: Uint8Array, pax: PaxRecords, pending: Pending, type: TarType, archiveOffset: number): Uint8Array {
    if (type !== 'symlink' && type !== 'hardlink') return NOTHING
    return this.#bounded(
      pax.values.get('linkpath') ?? pending.longLink ?? textField(header, 'link').slice(),
      archiveOffset,
    )
  }

  #bounded(path: Uint8Array, archiveOffset: number): Uint8Array {
    if (path.length > this.#limits.pathBytes)
      throw new TarError(
        'LIMIT',
        archiveOffset,
        `a path of ${path.length} bytes; ${this.#limits.pathBytes} are allowed`,
      )
    if (path.includes(0)) throw new TarError('BAD_EXTENSION', archiveOffset, 'a path with a NUL byte')
    return path
  }
}

/** Global records first, the entry's own over them. */
function merged(global: PaxRecords, own: PaxRecords): PaxRecords {
  if (global.values.size === 0 && global.xattrs.size === 0) return own
  return {
    values: new Map([...global.values, ...own.values]),
    xattrs: new Map([...global.xattrs, ...own.xattrs]),
    sparsePairs: own.sparsePairs,
  }
}

function upToNul(body: Uint8Array): Uint8Array {
  const end = body.indexOf(0)
  return end < 0 ? body : body.subarray(0, end)
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK
}

function display(path: Uint8Array): string {
  return JSON.stringify(Buffer.from(path).toString('utf8').slice(0, 200))
}
