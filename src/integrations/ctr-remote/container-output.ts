import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'

const PIECE_BYTES = 64 * 1024
/** Of a line that does not end, its last characters are kept. */
const MAX_LINE = 64 * 1024

/** A file that a container's output is appended to, read as it grows: each byte once, however much it is. */
export class ContainerOutput implements Disposable {
  readonly #fd: number
  readonly #wanted: string | undefined
  readonly #onText: (text: string) => void
  readonly #decoder = new StringDecoder('utf8')
  readonly #piece = Buffer.allocUnsafe(PIECE_BYTES)
  #position = 0
  #line = ''
  #isSaid = false

  /** The file is made when it is not there. `wanted` is text of a line that is waited for; `onText` gets all that is read. */
  constructor(path: string, wanted: string | undefined, onText: (text: string) => void) {
    this.#fd = openSync(path, 'a+', 0o600)
    this.#wanted = wanted
    this.#onText = onText
  }

  /** Reads what is there by now; true once a whole line had the wanted text. */
  read(): boolean {
    for (const { size } = fstatSync(this.#fd); this.#position < size; ) {
      const got = readSync(this.#fd, this.#piece, 0, Math.min(PIECE_BYTES, size - this.#position), this.#position)
      if (got === 0) break // it was made shorter
      this.#position += got
      this.#take(this.#decoder.write(this.#piece.subarray(0, got)))
    }
    return this.#isSaid
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd)
  }

  #take(text: string): void {
    this.#onText(text)
    const wanted = this.#wanted
    if (wanted === undefined) return
    const lines = (this.#line + text).split('\n')
    this.#line = (lines.pop() ?? '').slice(-MAX_LINE)
    this.#isSaid ||= lines.some((line) => line.includes(wanted))
  }
}
