import { Attributes, type Bootstrap, type ChunkSpan, type Ino } from '../rafs/index.ts'

/** Where file contents come from: verified, whatever way the blobs store them. The engine's image reader is one. */
export interface ImageData {
  /** Fills `into` with the bytes of `spans[0..count)` one after another. `spans` may be reused once the promise is there, `into` once it has settled. */
  read(spans: readonly ChunkSpan[], count: number, into: Uint8Array, signal: AbortSignal): Promise<void>
}

/** Bytes asked for in one go: enough to join what lies together into few requests. */
const WINDOW_BYTES = 4 * 1024 * 1024
/** Files, or parts of them, asked for in one go. Each costs some KiB until it was read, and there may be a million of a few bytes. */
const WINDOW_PIECES = 2048
/** Windows under way: one is written while the next one comes. */
const WINDOWS_AHEAD = 2

export interface ContentRun {
  readonly data: ImageData
  readonly signal: AbortSignal
  /** Told when bytes were taken. */
  readonly onBytes: (bytes: number) => void
}

/** A part of a file. */
interface Piece {
  readonly ino: Ino
  readonly offset: number
  readonly length: number
}

interface Window {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly ready: Promise<void>
}

/**
 * Contents of many files, one after another, read ahead across their borders: files much smaller than a window cost no request of their own. Memory is that of the windows.
 * The files come from `inodes`, which is walked ahead of what is read; `content` must be asked in the same order, and each content read to its end.
 */
export class ContentStream {
  readonly #image: Bootstrap
  readonly #data: ImageData
  readonly #signal: AbortSignal
  readonly #onBytes: (bytes: number) => void
  readonly #pieces: Generator<Piece>
  readonly #ahead: Window[] = []
  readonly #buffers: ArrayBuffer[] = []
  /** Of the first window of `#ahead`: bytes that were given out. */
  #used = 0
  /** A piece that did not fit the last window. */
  #left: Piece | undefined

  constructor(image: Bootstrap, inodes: Iterable<Ino>, { data, signal, onBytes }: ContentRun) {
    this.#image = image
    this.#data = data
    this.#signal = signal
    this.#onBytes = onBytes
    this.#pieces = piecesOf(image, inodes)
  }

  /** The next file's content; each array is valid until the next one is asked for. Throws what the reading threw. */
  async *content(size: number): AsyncGenerator<Uint8Array> {
    for (let given = 0; given < size; ) {
      const bytes = await this.#take(size - given)
      given += bytes.length
      yield bytes
      this.#onBytes(bytes.length)
    }
  }

  /** Waits for what is under way; errors of it no longer matter. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#ahead.splice(0).map(({ ready }) => ready))
  }

  async #take(most: number): Promise<Uint8Array> {
    if (this.#ahead[0] !== undefined && this.#used === this.#ahead[0].bytes.length) this.#recycle()
    while (this.#ahead.length < WINDOWS_AHEAD && this.#readAhead());
    const [window] = this.#ahead
    if (window === undefined) throw new RangeError('contents are asked for in another order than announced')
    await window.ready
    const from = this.#used
    this.#used = Math.min(window.bytes.length, from + most)
    return window.bytes.subarray(from, this.#used)
  }

  #recycle(): void {
    const done = this.#ahead.shift()
    if (done !== undefined) this.#buffers.push(done.bytes.buffer)
    this.#used = 0
  }

  /** Starts the next window; false when there is nothing more. */
  #readAhead(): boolean {
    const pieces: Piece[] = []
    let length = 0
    for (let piece = this.#next(); piece !== undefined; piece = this.#next()) {
      if (length + piece.length > WINDOW_BYTES || pieces.length === WINDOW_PIECES) {
        this.#left = piece
        break
      }
      length += piece.length
      pieces.push(piece)
    }
    if (length === 0) return false
    const bytes = new Uint8Array(this.#buffers.pop() ?? new ArrayBuffer(WINDOW_BYTES), 0, length)
    const spans: ChunkSpan[] = []
    for (const { ino, offset, length: wanted } of pieces) {
      const own: ChunkSpan[] = []
      own.length = this.#image.chunks(ino, offset, wanted, own)
      for (const span of own) spans.push(span)
    }
    const ready = this.#data.read(spans, spans.length, bytes, this.#signal)
    ready.catch(() => undefined) // thrown where the window is used
    this.#ahead.push({ bytes, ready })
    return true
  }

  #next(): Piece | undefined {
    const piece = this.#left ?? this.#pieces.next().value
    this.#left = undefined
    return piece ?? undefined
  }
}

/** Files in parts of whole chunks, none larger than a window (a chunk is at most 16 MiB: then a part is less than one). */
function* piecesOf(image: Bootstrap, inodes: Iterable<Ino>): Generator<Piece, undefined> {
  const attributes = new Attributes()
  const most = image.chunkSize >= WINDOW_BYTES ? WINDOW_BYTES : WINDOW_BYTES - (WINDOW_BYTES % image.chunkSize)
  for (const ino of inodes) {
    image.attributes(ino, attributes)
    const { size } = attributes
    for (let offset = 0; offset < size; ) {
      const length = Math.min(most - (offset % most), size - offset)
      yield { ino, offset, length }
      offset += length
    }
  }
  return undefined
}
