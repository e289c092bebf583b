import { CodecError } from './errors.ts'

/** A run of bytes of one frame; `last` ends it. */
export interface FramePart {
  readonly bytes: Uint8Array
  readonly last: boolean
  /** A skippable frame: it has no content. */
  readonly skippable: boolean
}

/** Frame magic and skippable magic (its low 4 bits are free). RFC 8878 §3.1. */
const FRAME_MAGIC = 0xfd2fb528
const SKIPPABLE_MAGIC = 0x184d2a50
const RLE_BLOCK = 1

/**
 * Cuts a zstd stream at the ends of its frames. The decompressor of node:zlib stops at the end of the first frame without a word, and layers often have
 * many (pzstd, zstd:chunked). Only sizes are read here: magic, frame header, block headers. Throws CodecError 'CORRUPT' for what is no frame,
 * 'TRUNCATED' for a stream that ends inside one.
 */
export async function* splitFrames(stream: AsyncIterable<Uint8Array>): AsyncGenerator<FramePart> {
  const cutter = new FrameCutter()
  for await (const bytes of stream) yield* cutter.cut(bytes)
  cutter.end()
}

type State = 'magic' | 'skippable-size' | 'descriptor' | 'header' | 'block-header' | 'content'

class FrameCutter {
  #state: State = 'magic'
  /** Bytes wanted before the state can change; they are gathered in #field, or passed on uncounted in 'content'. */
  #wanted = 4
  #field: number[] = []
  #afterContent: State | 'end' = 'block-header'
  #checksum = 0
  #skippable = false
  #offset = 0

  end(): void {
    if (this.#state !== 'magic' || this.#field.length > 0)
      throw new CodecError('TRUNCATED', `the zstd stream ends at byte ${this.#offset}, inside a frame`)
  }

  *cut(bytes: Uint8Array): Generator<FramePart> {
    let start = 0
    let at = 0
    while (at < bytes.length) {
      const taken = Math.min(this.#wanted, bytes.length - at)
      if (this.#state !== 'content') for (let i = 0; i < taken; i += 1) this.#field.push(bytes[at + i] ?? 0)
      at += taken
      this.#wanted -= taken
      if (this.#wanted > 0) break
      while (this.#wanted === 0) {
        if (!this.#next()) continue
        yield { bytes: bytes.subarray(start, at), last: true, skippable: this.#skippable }
        this.#skippable = false
        start = at
      }
    }
    this.#offset += bytes.length
    if (start < at) yield { bytes: bytes.subarray(start, at), last: false, skippable: this.#skippable }
  }

  /** Moves to the next state; true at the end of a frame. */
  #next(): boolean {
    const field = this.#field
    this.#field = []
    const value = field.reduceRight((sum, byte) => sum * 256 + byte, 0)
    switch (this.#state) {
      case 'magic':
        return this.#magic(value)
      case 'skippable-size':
        return this.#content(value, 'end')
      case 'descriptor':
        return this.#descriptor(value)
      case 'header':
        return this.#want('block-header', 3)
      case 'block-header': {
        const isLast = value % 2 === 1
        const size = (value >>> 1) % 4 === RLE_BLOCK ? 1 : value >>> 3
        return this.#content(size + (isLast ? this.#checksum : 0), isLast ? 'end' : 'block-header')
      }
      case 'content':
        if (this.#afterContent === 'end') {
          this.#want('magic', 4)
          return true
        }
        return this.#want(this.#afterContent, 3)
      default:
        return this.#state satisfies never
    }
  }

  #magic(value: number): boolean {
    // Parts of a frame that came before its magic was whole say `skippable: false`.
    this.#skippable = value >>> 4 === SKIPPABLE_MAGIC >>> 4
    if (this.#skippable) return this.#want('skippable-size', 4)
    if (value === FRAME_MAGIC) return this.#want('descriptor', 1)
    throw new CodecError('CORRUPT', `no zstd frame starts near byte ${this.#offset} (found 0x${value.toString(16)})`)
  }

  /** Frame_Header_Descriptor, RFC 8878 §3.1.1.1.1: sizes of the fields that follow. */
  #descriptor(value: number): boolean {
    const isSingleSegment = (value & 0x20) !== 0
    const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][value >>> 6] ?? 0
    const dictionary = [0, 1, 2, 4][value & 3] ?? 0
    this.#checksum = (value & 4) !== 0 ? 4 : 0
    return this.#want('header', (isSingleSegment ? 0 : 1) + dictionary + contentSize)
  }

  #content(size: number, after: State | 'end'): boolean {
    this.#afterContent = after
    return this.#want('content', size)
  }

  #want(state: State, bytes: number): boolean {
    this.#state = state
    this.#wanted = bytes
    return false
  }
}
