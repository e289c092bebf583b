/**
 * What the kernel has in hand of a shared directory, written where it outlives the process: the daemon after it finds the same files by the same numbers. Source: docs/formats/daemon-state.md, "Files in hand".
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { ownMemoryFolder, removeLeftMemory } from '../../kernel/index.ts'
import {
  BEGUN,
  type Change,
  DONE,
  type FilesInHand,
  KIND,
  LAYERED,
  type LayeredNode,
  MAGIC,
  nothingInHand,
  OPEN,
  parseInHand,
  RECORD,
  type RequestNumber,
  writeLayered,
} from './files-in-hand.ts'

const MOST_REST = 255
const NO_HANDLE = new Uint8Array(0)
/** Written anew when it is so large, and four times what is in hand. */
const COMPACT_BYTES = 1 << 20
const MOST_BYTES = 1 << 30
const SUFFIX = '.files'
const TEMPORARY = '.tmp'
const NAME = /^[0-9a-f]{32}\.files$/

let areLeftOnesGone = false

/** The name for a new journal; undefined where there is no memory for it: then files are not found again. */
export function newJournal(): string | undefined {
  try {
    const folder = ownMemoryFolder('nydus')
    if (folder === undefined) return undefined
    if (!areLeftOnesGone) for (const suffix of [SUFFIX, SUFFIX + TEMPORARY]) removeLeftMemory(folder, suffix)
    areLeftOnesGone = true
    return `${randomBytes(16).toString('hex')}${SUFFIX}`
  } catch {
    return undefined // as above
  }
}

/** What a state has in the place of a shared directory's configuration. */
export function journalDocument(journal: string | undefined): string {
  return journal === undefined ? '' : JSON.stringify({ files: journal })
}

/** The journal that such a document names; undefined also for one of the original's. */
export function journalIn(document: string): string | undefined {
  try {
    const { files } = JSON.parse(document) as { files?: unknown }
    return typeof files === 'string' ? journalNamed(files) : undefined
  } catch {
    return undefined // no document of ours
  }
}

/** The journal of that name; undefined when it cannot be one. */
export function journalNamed(name: string | undefined): string | undefined {
  return name !== undefined && NAME.test(name) ? name : undefined
}

/** The path of a journal that a state names. Undefined for what is none. */
function journalPath(name: string): string | undefined {
  try {
    const folder = NAME.test(name) ? ownMemoryFolder('nydus') : undefined
    return folder === undefined ? undefined : join(folder, name)
  } catch {
    return undefined // there is no such memory any more
  }
}

/** One writer at a time. What cannot be written any more ends the journal: a journal that says less than the truth would give files to others. */
export class FilesJournal {
  readonly before: FilesInHand
  readonly #path: string
  readonly #inHand: (to: FilesJournal) => void
  readonly #record = Buffer.alloc(RECORD.rest + MOST_REST)
  #fd: number
  #change: Change | undefined
  #bytes = 0
  #compactAt = COMPACT_BYTES

  private constructor(path: string, fd: number, before: FilesInHand, inHand: (to: FilesJournal) => void) {
    this.#path = path
    this.#fd = fd
    this.before = before
    this.#inHand = inHand
  }

  /** Reads what was written, if anything, and goes on with it. `inHand` writes all that is in hand to the journal that it is given. Undefined when it cannot be used. */
  static open(name: string, inHand: (to: FilesJournal) => void): FilesJournal | undefined {
    const path = journalPath(name)
    if (path === undefined) return undefined
    let fd = -1
    try {
      fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW, 0o600)
      const { size } = fstatSync(fd)
      const before = size > 0 && size <= MOST_BYTES ? parseInHand(readFileSync(fd)) : nothingInHand()
      const journal = new FilesJournal(path, fd, before, inHand)
      if (size === 0) writeSync(fd, MAGIC)
      else if (before.end > 0 && before.end < size) ftruncateSync(fd, before.end) // or what follows a cut record means nothing
      return journal
    } catch {
      if (fd >= 0) closeSync(fd)
      return undefined // full, or not for us: files are not found again
    }
  }

  node(id: number, handle: Uint8Array): void {
    if (RECORD.rest + handle.length <= this.#record.length) this.#append(KIND.node, id, handle)
  }

  forgotten(id: number): void {
    this.#append(KIND.forgotten, id)
  }

  /** Of a node that only the image has, without its NUL; before {@link layered}. */
  name(id: number, name: Uint8Array): void {
    this.#append(KIND.name, id, name)
  }

  layered(id: number, node: LayeredNode): void {
    const handle = node.handle ?? NO_HANDLE
    if (LAYERED.handle + handle.length > this.#record.length) return
    writeLayered(this.#record, node)
    this.#record.set(handle, LAYERED.handle)
    this.#append(KIND.layered, id, LAYERED.size + handle.length)
  }

  /** `request`: the one that it is the answer to. */
  open(handle: number, node: number, flags: number, request: RequestNumber | undefined): void {
    this.#record.writeBigUInt64LE(BigInt(node), OPEN.node)
    this.#record.writeUInt32LE(flags >>> 0, OPEN.flags)
    this.#record.writeUInt32LE(request?.low ?? 0, OPEN.low)
    this.#record.writeUInt32LE(request?.high ?? 0, OPEN.high)
    this.#append(KIND.open, handle, OPEN.size)
  }

  released(handle: number): void {
    this.#append(KIND.released, handle)
  }

  /** A change is about to be made, or was made and is about to be answered. The one before it was answered. */
  change(change: Change): void {
    this.#change = change
    this.#writeChange(change)
  }

  /** Leaves it to the next process. */
  leave(): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
  }

  /** Nobody will go on with it. */
  end(): void {
    if (this.#fd < 0) return
    this.leave()
    for (const path of [this.#path, `${this.#path}${TEMPORARY}`]) rmSync(path, { force: true })
  }

  #writeChange({ low, high, begun, result }: Change): void {
    const record = this.#record
    record.writeUInt32LE(low, RECORD.number)
    record.writeUInt32LE(high, RECORD.number + 4)
    if (result !== undefined) {
      record.writeInt32LE(result, DONE.result)
      this.#append(KIND.done, undefined, DONE.size)
    } else if (begun !== undefined) {
      record.writeBigUInt64LE(BigInt(begun.at), BEGUN.at)
      record.set(begun.before, BEGUN.before)
      this.#append(KIND.begun, undefined, BEGUN.size)
    }
  }

  /** `rest`: the bytes, or how many of them stand in the record already. */
  #append(kind: number, number: number | undefined, rest: Uint8Array | number = 0): void {
    if (this.#fd < 0) return
    const length = typeof rest === 'number' ? rest : rest.length
    this.#record[RECORD.kind] = kind
    this.#record[RECORD.length] = length
    if (number !== undefined) this.#record.writeBigUInt64LE(BigInt(number), RECORD.number)
    if (typeof rest !== 'number') this.#record.set(rest, RECORD.rest)
    try {
      const size = RECORD.rest + length
      if (writeSync(this.#fd, this.#record, 0, size) < size) throw noRoom()
      this.#bytes += size
      if (this.#bytes > this.#compactAt) this.#compact()
    } catch {
      this.end() // memory is full
    }
  }

  /** A process that is killed meanwhile leaves the old one, whole. */
  #compact(): void {
    const temporary = `${this.#path}${TEMPORARY}`
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_APPEND | constants.O_NOFOLLOW
    const fresh = new FilesJournal(temporary, openSync(temporary, flags, 0o600), nothingInHand(), () => undefined)
    try {
      fresh.#compactAt = Number.POSITIVE_INFINITY
      writeSync(fresh.#fd, MAGIC)
      this.#inHand(fresh)
      for (const change of this.before.changes.values()) fresh.#writeChange(change)
      if (this.#change !== undefined) fresh.#writeChange(this.#change)
      if (fresh.#fd < 0) throw noRoom()
      renameSync(temporary, this.#path)
    } catch (error) {
      fresh.end()
      throw error
    }
    closeSync(this.#fd)
    this.#fd = fresh.#fd
    this.#bytes = 0
    this.#compactAt = Math.max(COMPACT_BYTES, 4 * fresh.#bytes)
  }
}

function noRoom(): Error {
  return new Error('there is no room for what is in hand')
}
