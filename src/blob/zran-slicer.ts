/**
 * Cuts a gzip file into slices that can be inflated each for itself, along the chunks that are read from it. Source: docs/formats/blob.md, "How slices are cut".
 */
import type { GzipCursor } from '../codec/index.ts'
import { BlobError } from './errors.ts'
import { SpilledBytes } from './spilled-bytes.ts'
import { CONTEXT, MAX_META_BYTES, MAX_SLICE_BYTES } from './zran.ts'

/** A slice is long enough with half of it compressed; or when the next chunk would bring it to this, plain. */
const MAX_COMPRESSED = 1 << 20
const MAX_PLAIN = 2 << 20
/** From here on, what lies between two chunks and belongs to neither may end a slice. */
const MIN_COMPRESSED = 1 << 19
const MAX_CONTEXTS = 1 << 24

/** What readers take: larger files are refused. Bytes. */
export interface SliceLimits {
  /** Of a slice, compressed. */
  readonly sliceBytes: number
  /** Of all contexts with their dictionaries. */
  readonly metaBytes: number
}

const READABLE: SliceLimits = { sliceBytes: MAX_SLICE_BYTES, metaBytes: MAX_META_BYTES }

/** Where the bytes of a chunk lie in a file, as they are. */
export interface StoredPlace {
  readonly compressedOffset: number
  readonly compressedSize: number
}

/** Where a chunk that was read from a gzip file lies in it. */
export interface ZranPlace {
  /** Where the decoder was when it began, and how much it took: not enough to inflate the chunk, and 0 for one whose symbols were taken before. */
  readonly compressedOffset: number
  readonly compressedSize: number
  /** Number of its slice, and the chunk's offset in what the slice inflates to. */
  readonly context: number
  readonly offset: number
}

export type ReferredPlace = ZranPlace | StoredPlace

interface Slice {
  readonly compressedOffset: number
  readonly uncompressedOffset: number
  readonly bits: number
  readonly byte: number
  readonly dictionarySize: number
  compressedSize: number
  uncompressedSize: number
  /** Its last chunk ends where a member does. */
  endsMember: boolean
}

/**
 * Told when a chunk's bytes begin and end, it decides which slice they are in. The same decisions as the original's, but for slices that begin or end with a member of the file: those of the
 * original cannot be inflated. Memory: some words a slice. To be closed.
 */
export class ZranSlicer {
  readonly #cursor: GzipCursor
  readonly #chunkSize: number
  readonly #limits: SliceLimits
  readonly #slices: Slice[] = []
  #current: Slice | undefined
  #chunkAt = { compressed: 0, plain: 0 }
  /** Of all slices: 32 KiB each, and there may be thousands. */
  readonly #dictionaries = new SpilledBytes()

  constructor(cursor: GzipCursor, chunkSize: number, limits = READABLE) {
    this.#cursor = cursor
    this.#chunkSize = chunkSize
    this.#limits = limits
  }

  get contextCount(): number {
    return this.#slices.length
  }

  /** Bytes of all contexts with their dictionaries. */
  get byteLength(): number {
    return this.#slices.length * CONTEXT.size + this.#dictionaries.length
  }

  /** A chunk's bytes are read next. False when the file must be read into its next member first (`cursor.enterMember`). Throws BlobError 'TOO_LARGE' or 'NO_SPACE'. */
  begin(): boolean {
    const cursor = this.#cursor
    const current = this.#current
    if (current === undefined || this.#isComplete(current)) {
      if (cursor.isBehindBlocks) return false
      this.#next()
    }
    this.#chunkAt = { compressed: cursor.compressedOffset, plain: cursor.uncompressedOffset }
    return true
  }

  /** The chunk's bytes were read. Throws BlobError 'TOO_LARGE'. */
  end(): ZranPlace {
    const slice = this.#current
    if (slice === undefined) throw new RangeError('a chunk ends that did not begin')
    const cursor = this.#cursor
    slice.compressedSize = cursor.compressedOffset - slice.compressedOffset
    slice.uncompressedSize = cursor.uncompressedOffset - slice.uncompressedOffset
    if (slice.compressedSize > this.#limits.sliceBytes || slice.uncompressedSize > 0xffff_ffff)
      throw new BlobError(
        'TOO_LARGE',
        `the gzip file has a deflate block of ${slice.compressedSize} bytes (${slice.uncompressedSize} plain) at byte ${slice.compressedOffset}, which can only be read whole; compress the layer anew, or build it with --type targz-rafs`,
      )
    slice.endsMember = cursor.isBehindBlocks && cursor.pointOffset === cursor.compressedOffset
    if (slice.endsMember) cursor.watchMembers()
    const { compressed, plain } = this.#chunkAt
    return {
      compressedOffset: compressed,
      compressedSize: cursor.compressedOffset - compressed,
      context: this.#slices.length - 1,
      offset: plain - slice.uncompressedOffset,
    }
  }

  /** The file is read to its end. */
  finish(): void {
    this.#close()
    this.#current = undefined
  }

  /** The contexts, then their dictionaries, piece by piece; each valid until the next one. After {@link finish}. */
  *encode(): Generator<Uint8Array> {
    let dictionaryAt = 0
    for (const slice of this.#slices) {
      yield encodeContext(slice, dictionaryAt)
      dictionaryAt += slice.dictionarySize
    }
    yield* this.#dictionaries.pieces()
  }

  close(): void {
    this.#dictionaries.close()
  }

  #isComplete(slice: Slice): boolean {
    const cursor = this.#cursor
    // A slice begins and ends between blocks: none can end within its first one.
    if (cursor.pointOffset === slice.compressedOffset) return false
    const compressed = cursor.compressedOffset - slice.compressedOffset
    const plain = cursor.uncompressedOffset - slice.uncompressedOffset
    if (compressed >= MAX_COMPRESSED / 2 || plain + this.#chunkSize >= MAX_PLAIN) return true
    return compressed > 2 * slice.compressedSize && slice.compressedSize > MIN_COMPRESSED
  }

  #next(): void {
    this.#close()
    const { dictionary, ...point } = this.#cursor.point()
    this.#current = {
      ...point,
      dictionarySize: dictionary.length,
      compressedSize: 0,
      uncompressedSize: 0,
      endsMember: false,
    }
    this.#dictionaries.add(dictionary)
    this.#slices.push(this.#current)
    if (this.#slices.length > MAX_CONTEXTS || this.byteLength > this.#limits.metaBytes)
      throw new BlobError(
        'TOO_LARGE',
        `${this.#slices.length} slices of the gzip file have contexts of ${this.byteLength} bytes; up to ${this.#limits.metaBytes} are read: split the layer, or build it with --type targz-rafs`,
      )
  }

  /** Decoders that meet the end of a member look for the next one, also when they have all they want: the slice goes on to its first byte. */
  #close(): void {
    const slice = this.#current
    const next = this.#cursor.memberAhead
    if (slice?.endsMember === true && next !== undefined) slice.compressedSize = next + 1 - slice.compressedOffset
  }
}

function encodeContext(slice: Slice, dictionaryAt: number): Uint8Array {
  const bytes = Buffer.alloc(CONTEXT.size)
  bytes.writeBigUInt64LE(BigInt(slice.compressedOffset), CONTEXT.compressedOffset)
  bytes.writeBigUInt64LE(BigInt(slice.uncompressedOffset), CONTEXT.uncompressedOffset)
  bytes.writeBigUInt64LE(BigInt(dictionaryAt), CONTEXT.dictionaryOffset)
  bytes.writeUInt32LE(slice.compressedSize, CONTEXT.compressedSize)
  bytes.writeUInt32LE(slice.uncompressedSize, CONTEXT.uncompressedSize)
  bytes.writeUInt32LE(slice.dictionarySize, CONTEXT.dictionarySize)
  bytes.writeUInt8(slice.byte, CONTEXT.byte)
  bytes.writeUInt8(slice.bits, CONTEXT.bits)
  return bytes
}
