import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BlobError } from './errors.ts'

const PIECE_BYTES = 1 << 20
/** So much is held in memory. */
const HELD_BYTES = 24 << 20

/** Bytes that are written once, front to back, and read as often as needed; what is too much for memory lies in a file without a name. To be closed. */
export class SpilledBytes {
  length = 0
  readonly #heldBytes: number
  readonly #held: Buffer[] = []
  /** The piece that is filled. */
  #last = Buffer.allocUnsafeSlow(0)
  #filled = 0
  #file: number | undefined
  #fileBytes = 0

  constructor(heldBytes = HELD_BYTES) {
    this.#heldBytes = heldBytes
  }

  /** Copies them. Throws BlobError 'NO_SPACE'. */
  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#filled === this.#last.length) this.#nextPiece()
      const part = bytes.subarray(at, at + this.#last.length - this.#filled)
      this.#last.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
    }
    this.length += bytes.length
  }

  /** All of them; a piece is valid until the next one. Throws BlobError 'NO_SPACE'. */
  *pieces(): Generator<Uint8Array> {
    yield* this.#held
    const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, this.#fileBytes))
    for (let at = 0; at < this.#fileBytes; at += piece.length) {
      const part = piece.subarray(0, this.#fileBytes - at)
      this.#guarded((file) => readWhole(file, part, at))
      yield part
    }
    if (this.#filled > 0) yield this.#last.subarray(0, this.#filled)
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file)
    this.#file = undefined
    this.#held.length = 0
  }

  #nextPiece(): void {
    if (this.#filled > 0) {
      if ((this.#held.length + 1) * PIECE_BYTES <= this.#heldBytes) {
        this.#held.push(this.#last)
        this.#last = Buffer.allocUnsafeSlow(PIECE_BYTES)
      } else this.#spill(this.#last)
    } else this.#last = Buffer.allocUnsafeSlow(PIECE_BYTES)
    this.#filled = 0
  }

  #spill(bytes: Uint8Array): void {
    this.#guarded((file) => {
      for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at)
    })
    this.#fileBytes += bytes.length
  }

  #guarded(action: (file: number) => void): void {
    try {
      this.#file ??= openNameless()
      action(this.#file)
    } catch (cause) {
      throw new BlobError(
        'NO_SPACE',
        `${this.length} bytes, too many for memory, cannot be kept in a file in ${tmpdir()}: ${cause instanceof Error ? cause.message : String(cause)}; the variable TMPDIR names another folder`,
        { cause },
      )
    }
  }
}

/** Nobody else sees it, and it is gone with its process. */
function openNameless(): number {
  const path = join(tmpdir(), `nydus-${process.pid}-${process.hrtime.bigint()}`)
  const file = openSync(path, 'wx+', 0o600)
  unlinkSync(path)
  return file
}

function readWhole(file: number, into: Uint8Array, position: number): void {
  for (let at = 0; at < into.length; ) {
    const bytes = readSync(file, into, at, into.length - at, position + at)
    if (bytes === 0) throw new Error(`it ends at byte ${fstatSync(file).size}`)
    at += bytes
  }
}
