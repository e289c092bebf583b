import { CodecError } from './errors.ts'
import type { InflateStart } from './inflate-slice.ts'
import { InflateStream, WINDOW_BYTES } from './inflate-stream.ts'
import { MemberCheck } from './member-check.ts'

/** A place in a gzip file, between two deflate blocks, from which it can be inflated without what comes before. */
export interface GzipPoint extends InflateStart {
  /** In the file, and in what it inflates to. */
  readonly compressedOffset: number
  readonly uncompressedOffset: number
}

const NOTHING = new Uint8Array(0)

/**
 * Inflates a gzip file of any number of members, exactly as far as it is asked to, and knows at each moment where it is and from where one could start anew. Input is fed piece by
 * piece; where pieces end shows in {@link compressedOffset} at that place and nowhere else. To be closed.
 */
export class GzipCursor {
  readonly #stream: InflateStream
  readonly #check = new MemberCheck()
  /** Plain bytes of the current output that were checked. */
  #checked = 0
  /** Of the input in the file. */
  #inputStart = 0
  /** The byte before the input. */
  #byteBefore = 0
  #uncompressedOffset = 0
  /** Bytes of a member were read, and its end was not. */
  #isInMember = false
  /** No place between blocks of the member was met yet. */
  #isBeforeBlocks = true
  /** The last place between two blocks, and the plain bytes before it. */
  readonly #point = { compressedOffset: 0, uncompressedOffset: 0, bits: 0, byte: 0, isMemberEnd: true }
  readonly #window = new Uint8Array(new ArrayBuffer(WINDOW_BYTES))
  #windowSize = 0
  #windowAt = -1
  #memberAhead: number | undefined

  /** Undefined when zlib cannot be called on this machine. */
  static open(): GzipCursor | undefined {
    const stream = InflateStream.open('gzip')
    return stream && new GzipCursor(stream)
  }

  private constructor(stream: InflateStream) {
    this.#stream = stream
    stream.ignoreChecksum()
  }

  /** Bytes of the file that the decoder has taken: those of the next symbol too, since it looks ahead that far. */
  get compressedOffset(): number {
    return this.#inputStart + this.#inputAt
  }

  /** Plain bytes so far. */
  get uncompressedOffset(): number {
    return this.#uncompressedOffset
  }

  get wantsInput(): boolean {
    return this.#stream.inputLeft === 0
  }

  /** What was read are whole members, their checksums right. */
  get isWhole(): boolean {
    return !this.#isInMember && this.wantsInput
  }

  /** The next bytes of the file, not to be changed until they are used up; only when {@link wantsInput}. */
  feed(input: Uint8Array): void {
    const used = this.#stream.input
    this.#check.pass(used)
    this.#byteBefore = used.at(-1) ?? this.#byteBefore
    this.#inputStart += used.length
    this.#stream.feed(input)
  }

  /**
   * Inflates into `into` until it is full or the input is used up; gives the plain bytes. Throws CodecError 'CORRUPT'.
   */
  read(into: Uint8Array): number {
    const stream = this.#stream
    stream.aim(into)
    this.#checked = 0
    while (stream.outputLeft > 0 && stream.inputLeft > 0) this.#step()
    this.#checkOutput()
    return into.length - stream.outputLeft
  }

  /** Goes on to the first block of the next member, through an end of one that has no plain bytes left. False when input is wanted first. */
  enterMember(): boolean {
    this.#stream.aim(NOTHING)
    this.#checked = 0
    while (this.#point.isMemberEnd) {
      if (this.wantsInput) return false
      this.#step()
    }
    return true
  }

  /** Before the first block, or at the last place between blocks the member's last one ended: nothing can be inflated from there, and {@link enterMember} leads to where it can. */
  get isBehindBlocks(): boolean {
    return this.#point.isMemberEnd
  }

  /** Where the last place between two blocks lies in the file. */
  get pointOffset(): number {
    return this.#point.compressedOffset
  }

  /** The last place between two blocks; its dictionary is a view, valid until more is read. */
  point(): GzipPoint {
    const { compressedOffset, uncompressedOffset, bits, byte } = this.#point
    return { compressedOffset, uncompressedOffset, bits, byte, dictionary: this.#window.subarray(0, this.#windowSize) }
  }

  /** The first member that begins from now on is kept in mind. */
  watchMembers(): void {
    this.#memberAhead = undefined
  }

  /** Where the first block begins of the first member after {@link watchMembers}; undefined when none came. */
  get memberAhead(): number | undefined {
    return this.#memberAhead
  }

  close(): void {
    this.#stream.close()
  }

  #step(): void {
    const stream = this.#stream
    const { consumed, produced, isEnd, isBoundary, isLastBlock, pendingBits } = stream.run(true)
    this.#uncompressedOffset += produced
    if (isEnd) {
      this.#checkOutput()
      this.#check.finish(stream.input, this.#inputAt)
      stream.reset('gzip')
      stream.ignoreChecksum()
      this.#isInMember = false
      this.#isBeforeBlocks = true
      return
    }
    if (consumed === 0 && produced === 0)
      throw new CodecError('CORRUPT', `gzip: nothing comes of what lies at byte ${this.compressedOffset}`)
    this.#isInMember = true
    if (isBoundary) this.#mark(isLastBlock, pendingBits)
  }

  #checkOutput(): void {
    const { output, outputLeft } = this.#stream
    const end = output.length - outputLeft
    if (end > this.#checked) this.#check.update(output.subarray(this.#checked, end))
    this.#checked = end
  }

  get #inputAt(): number {
    return this.#stream.input.length - this.#stream.inputLeft
  }

  #mark(isMemberEnd: boolean, bits: number): void {
    const point = this.#point
    point.compressedOffset = this.compressedOffset
    point.uncompressedOffset = this.#uncompressedOffset
    point.bits = bits
    point.byte = bits === 0 ? 0 : this.#inputAt === 0 ? this.#byteBefore : (this.#stream.input[this.#inputAt - 1] ?? 0)
    point.isMemberEnd = isMemberEnd
    if (this.#isBeforeBlocks) this.#memberAhead ??= point.compressedOffset
    // Many empty blocks one after another have the same window.
    else if (this.#windowAt === this.#uncompressedOffset) return
    this.#isBeforeBlocks = false
    this.#windowSize = this.#stream.window(this.#window)
    this.#windowAt = this.#uncompressedOffset
  }
}
