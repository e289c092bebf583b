import { nativeModule } from '../kernel/native-module/index.ts'
import { CodecError } from './errors.ts'
import { functionsOf, openLibrary } from './native.ts'

/** What a deflate stream is wrapped in. Source: zlib.h, inflateInit2: negative window bits mean raw, 16 more mean gzip. */
export type InflateFraming = 'raw' | 'gzip'
const WINDOW_BITS: Readonly<Record<InflateFraming, number>> = { raw: -15, gzip: 31 }

/** Deflate looks back so far. */
export const WINDOW_BYTES = 1 << 15

const NOTHING = new Uint8Array(0)

/** `z_stream` on 64-bit Linux, 112 bytes. Source: zlib.h. */
const STREAM = { size: 112, nextIn: 0, availableIn: 8, nextOut: 24, availableOut: 32, dataType: 88 } as const
const FLUSH = { none: 0, block: 5 } as const
const RESULT = { ok: 0, streamEnd: 1, bufferError: -5 } as const
/** `data_type` after a stop at a block's end: bits not used of the last byte, "in the last block", "at a block's end". */
const DATA_TYPE = { bits: 0x7, lastBlock: 0x40, boundary: 0x80 } as const

/** How a step of {@link InflateStream.run} ended. */
export interface InflateStep {
  consumed: number
  produced: number
  /** The deflate stream (for gzip: with its trailer) is over. */
  isEnd: boolean
  /** It stopped between two blocks, or behind a gzip header; only when asked to. */
  isBoundary: boolean
  /** At a boundary: the block before was the stream's last. */
  isLastBlock: boolean
  /** At a boundary: so many high bits of the last consumed byte belong to the next block. */
  pendingBits: number
}

type Zlib = NonNullable<ReturnType<typeof openZlib>>

function openZlib(name: string | undefined) {
  return functionsOf(openLibrary(name), {
    init: 'int inflateInit2_(uint8_t *stream, int bits, const char *version, int size)',
    inflate: 'int inflate(intptr_t stream, int flush)',
    prime: 'int inflatePrime(uint8_t *stream, int bits, int value)',
    setDictionary: 'int inflateSetDictionary(uint8_t *stream, const uint8_t *bytes, uint32_t size)',
    getDictionary: 'int inflateGetDictionary(uint8_t *stream, uint8_t *bytes, uint32_t *size)',
    reset: 'int inflateReset2(uint8_t *stream, int bits)',
    validate: 'int inflateValidate(uint8_t *stream, int check)',
    end: 'int inflateEnd(uint8_t *stream)',
  })
}

interface Addressing {
  address(of: Uint8Array): bigint
}

let found: { readonly zlib: Zlib; readonly koffi: Addressing } | undefined | 'unknown' = 'unknown'

/** The node binary exports its own zlib; a system's serves as well. */
function native(): { readonly zlib: Zlib; readonly koffi: Addressing } | undefined {
  if (found !== 'unknown') return found
  const zlib = openZlib(undefined) ?? openZlib('libz.so.1')
  found = zlib && { zlib, koffi: nativeModule() as Addressing }
  return found
}

/**
 * Inflate step by step, as only zlib itself offers it: stops at block ends, starts in mid-stream. To be closed: it holds memory that the collector does not know. Undefined from `open`
 * when zlib cannot be called on this machine.
 */
export class InflateStream {
  /** Held, since zlib points into them. */
  input: Uint8Array = NOTHING
  output: Uint8Array = NOTHING
  /** Bytes of the input that were not read, and of the output that were not written. */
  inputLeft = 0
  outputLeft = 0
  readonly step: InflateStep = {
    consumed: 0,
    produced: 0,
    isEnd: false,
    isBoundary: false,
    isLastBlock: false,
    pendingBits: 0,
  }
  readonly #zlib: Zlib
  readonly #koffi: Addressing
  readonly #stream = new Uint8Array(new ArrayBuffer(STREAM.size))
  readonly #view = new DataView(this.#stream.buffer)
  /** Of the stream; zlib's numbers are in the order of this machine. */
  readonly #words = new Int32Array(this.#stream.buffer)
  /** Of the stream: a number is passed faster than an array. */
  readonly #address: number
  readonly #length = new Uint8Array(new ArrayBuffer(64))
  #isOpen = true

  static open(framing: InflateFraming): InflateStream | undefined {
    const here = native()
    return here && new InflateStream(here.zlib, here.koffi, framing)
  }

  private constructor(zlib: Zlib, koffi: Addressing, framing: InflateFraming) {
    this.#zlib = zlib
    this.#koffi = koffi
    this.#address = Number(koffi.address(this.#stream))
    this.#check(zlib.init(this.#stream, WINDOW_BITS[framing], '1.2.3', STREAM.size), 'start')
  }

  reset(framing: InflateFraming): void {
    this.#check(this.#zlib.reset(this.#stream, WINDOW_BITS[framing]), 'start again')
  }

  /** The checksum of gzip is not compared, up to the next reset: zlib takes longer for it than others. */
  ignoreChecksum(): void {
    this.#check(this.#zlib.validate(this.#stream, 0), 'ignore checksums')
  }

  /** Starts in mid-stream: the high `bits` bits of `byte` come first, and this is what can be referred to. */
  resume(bits: number, byte: number, dictionary: Uint8Array): void {
    this.reset('raw')
    if (bits > 0) this.#check(this.#zlib.prime(this.#stream, bits, byte >>> (8 - bits)), 'start in mid-byte')
    if (dictionary.length > 0)
      this.#check(this.#zlib.setDictionary(this.#stream, dictionary, dictionary.length), 'take the window')
  }

  /** What is inflated next, not to be changed until it is used up; no shared memory. Nothing of the input before is left to be read. */
  feed(input: Uint8Array): void {
    this.input = input
    this.inputLeft = input.length
    if (input.length > 0) this.#view.setBigUint64(STREAM.nextIn, this.#koffi.address(input), true)
    this.#view.setUint32(STREAM.availableIn, input.length, true)
  }

  /** Where plain bytes go next, front to back; no shared memory. */
  aim(output: Uint8Array): void {
    this.output = output
    this.outputLeft = output.length
    // zlib refuses to have no place at all, also when it may not write there.
    this.#view.setBigUint64(STREAM.nextOut, this.#koffi.address(output.length === 0 ? this.#length : output), true)
    this.#view.setUint32(STREAM.availableOut, output.length, true)
  }

  /** Lets go of what was read and written. */
  release(): void {
    this.feed(NOTHING)
    this.aim(NOTHING)
  }

  /**
   * Inflates until input or output is used up, the stream ends, or (with `stopAtBlocks`) a block ends. Throws CodecError 'CORRUPT'.
   */
  run(stopAtBlocks: boolean): InflateStep {
    const result = this.#zlib.inflate(this.#address, stopAtBlocks ? FLUSH.block : FLUSH.none)
    if (result !== RESULT.ok && result !== RESULT.streamEnd && result !== RESULT.bufferError)
      throw new CodecError('CORRUPT', `gzip: not a valid deflate stream (error ${result})`)
    const { step } = this
    const inputLeft = this.#words[STREAM.availableIn / 4]
    const outputLeft = this.#words[STREAM.availableOut / 4]
    const dataType = this.#words[STREAM.dataType / 4]
    step.consumed = this.inputLeft - inputLeft
    step.produced = this.outputLeft - outputLeft
    this.inputLeft = inputLeft
    this.outputLeft = outputLeft
    step.isEnd = result === RESULT.streamEnd
    step.isBoundary = (dataType & DATA_TYPE.boundary) !== 0
    step.isLastBlock = (dataType & DATA_TYPE.lastBlock) !== 0
    step.pendingBits = dataType & DATA_TYPE.bits
    return step
  }

  /** Writes what the next block can refer to into `into` (32 KiB); gives its length. */
  window(into: Uint8Array): number {
    this.#check(this.#zlib.getDictionary(this.#stream, into, this.#length), 'give its window')
    return new DataView(this.#length.buffer).getUint32(0, true)
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#zlib.end(this.#stream)
    this.input = this.output = NOTHING
  }

  #check(result: number | bigint, what: string): void {
    if (result !== RESULT.ok) throw new CodecError('CORRUPT', `gzip: zlib cannot ${what} (error ${result})`)
  }
}
