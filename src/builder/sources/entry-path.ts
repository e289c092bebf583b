const SLASH = 0x2f

/** Where an entry is, as the kernel wants it: bytes that end in NUL, with whatever behind that. */
export interface EndedPath {
  readonly ended: Uint8Array
  /** The path without its end, in memory of its own. */
  copy(): Buffer
}

/** Gives the path of something that is named once. */
export function endedPath(path: Buffer): EndedPath {
  return { ended: Buffer.concat([path, Buffer.alloc(1)]), copy: () => path }
}

/**
 * The path of one entry of a directory after the other, in the same memory: in a tree of small files the garbage of a path an entry costs as much as the system calls. Names are bytes, one a character.
 */
export class EntryPath implements EndedPath {
  readonly ended: Buffer
  /** The name alone, as `ended` is. */
  readonly endedName: Uint8Array
  readonly #nameAt: number
  #length = 0

  /** `names`: all that `move` will be given. */
  constructor(directory: Buffer, names: readonly string[]) {
    let longest = 0
    for (const { length } of names) longest = Math.max(longest, length)
    this.#nameAt = directory.length + 1
    this.ended = Buffer.alloc(this.#nameAt + longest + 1)
    directory.copy(this.ended)
    this.ended[directory.length] = SLASH
    this.endedName = this.ended.subarray(this.#nameAt)
  }

  /** Goes to another entry of the directory. */
  move(name: string): void {
    this.#length = this.#nameAt + this.ended.write(name, this.#nameAt, 'latin1')
    this.ended[this.#length] = 0
  }

  copy(): Buffer {
    return Buffer.from(this.ended.subarray(0, this.#length))
  }
}
