/** Bytes of a disk. */
export interface DiskRange {
  readonly offset: number
  readonly length: number
}

/** A part of a disk that stands in a file, whole pages of both. */
export interface FilePiece extends DiskRange {
  readonly fd: number
  readonly fileOffset: number
}

/** Where the pages of a range are: in files, nowhere (zeros), or in what must be read and copied. Together they are the range. */
export interface DiskPieces {
  readonly files: readonly FilePiece[]
  readonly zeros: readonly DiskRange[]
  readonly copies: readonly DiskRange[]
}

/** Where some bytes of a disk are: `fd` has them at their place on the disk less `start`. */
export interface Place {
  readonly fd: number
  readonly start: number
}

export const PAGE = 4096
const ZERO = -1
const COPY = -2

/** Gathers, page by page, where the data of a range is. */
export class PageMap {
  readonly #offset: number
  readonly #fds: Int32Array
  readonly #starts: Float64Array

  /** Both are multiples of a page. */
  constructor({ offset, length }: DiskRange) {
    this.#offset = offset
    this.#fds = new Int32Array(length / PAGE).fill(ZERO)
    this.#starts = new Float64Array(length / PAGE)
  }

  /** These bytes are at `place`; without one they must be copied. Pages that several sources share are copied too, and so are those that are no pages of their file. */
  mark({ offset, length }: DiskRange, place: Place | undefined): void {
    const first = Math.max(0, Math.floor((offset - this.#offset) / PAGE))
    const end = Math.min(this.#fds.length, Math.ceil((offset + length - this.#offset) / PAGE))
    const usable = place !== undefined && place.start % PAGE === 0 ? place : undefined
    for (let page = first; page < end; page++) {
      const isNew = this.#fds[page] === ZERO
      const isSame = this.#fds[page] === usable?.fd && this.#starts[page] === usable.start
      if (isNew && usable !== undefined) {
        this.#fds[page] = usable.fd
        this.#starts[page] = usable.start
      } else if (!isSame) {
        this.#fds[page] = COPY
        this.#starts[page] = 0
      }
    }
  }

  pieces(): DiskPieces {
    const files: FilePiece[] = []
    const zeros: DiskRange[] = []
    const copies: DiskRange[] = []
    for (let page = 0; page < this.#fds.length; ) {
      const [fd, start] = [this.#fds[page] ?? ZERO, this.#starts[page] ?? 0]
      const from = page
      while (page < this.#fds.length && this.#fds[page] === fd && this.#starts[page] === start) page++
      const range = { offset: this.#offset + from * PAGE, length: (page - from) * PAGE }
      if (fd === ZERO) zeros.push(range)
      else if (fd === COPY) copies.push(range)
      else files.push({ ...range, fd, fileOffset: range.offset - start })
    }
    return { files, zeros, copies }
  }
}
