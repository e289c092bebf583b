/** Blocks of data files that must stay as they are, since the kernel shows them, or will. Source: docs/formats/cache.md, "Pinned blocks". */
import { readFileSync, rmSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError, lockFile, tryLockFile } from '../kernel/index.ts'
import { cachePath, placeFile } from './cache-files.ts'
import { bitOf } from './chunk-map-format.ts'
import { errnoName } from './errors.ts'

const BLOCK = 4096
const MAGIC = Buffer.from('nydus pins 1\0\0\0\0', 'latin1')
const POLL_MS = 5
/** Who pins has the lock for less; whoever else has it must not stop a store. */
const LOCK_PATIENCE_MS = 1000

/** A bit a block. */
export class BlockSet {
  readonly bits: Uint8Array

  /** Of a data file of so many bytes. */
  constructor(size: number, bits = new Uint8Array(Math.ceil(Math.ceil(size / BLOCK) / 8))) {
    this.bits = bits
  }

  /** Every block that these bytes touch. */
  add(offset: number, length: number): void {
    for (const block of blocksOf(offset, length)) this.bits[block >> 3] = (this.bits[block >> 3] ?? 0) | bitOf(block)
  }

  touches(offset: number, length: number): boolean {
    for (const block of blocksOf(offset, length)) if (((this.bits[block >> 3] ?? 0) & bitOf(block)) !== 0) return true
    return false
  }

  /** Adds the others'; false when that changes nothing. */
  addAll(others: BlockSet): boolean {
    let isChanged = false
    for (const [at, byte] of others.bits.entries()) {
      const both = (this.bits[at] ?? 0) | byte
      if (both !== this.bits[at]) isChanged = true
      this.bits[at] = both
    }
    return isChanged
  }
}

function* blocksOf(offset: number, length: number): Generator<number> {
  if (length <= 0) return
  const last = Math.floor((offset + length - 1) / BLOCK)
  for (let block = Math.floor(offset / BLOCK); block <= last; block += 1) yield block
}

/** The pins of one data file, as they are now. What is no pin file pins everything. */
class Pins {
  readonly #path: string
  #known: { readonly identity: string; readonly found: Found } | undefined

  constructor(path: string) {
    this.#path = path
  }

  touch(offset: number, length: number): boolean {
    const identity = identityOf(this.#path)
    if (identity === undefined) return false
    if (this.#known?.identity !== identity) this.#known = { identity, found: readPins(this.#path) }
    const { found } = this.#known
    return found instanceof BlockSet ? found.touches(offset, length) : found === 'garbage'
  }
}

/** Tells pins from any that stand there later; undefined when there are none. */
export function pinsIdentity(directory: string, blobId: string): string | undefined {
  return identityOf(cachePath(directory, blobId, 'pins'))
}

/** Pins that were added. */
export interface AddedPins {
  /** What is pinned now; see {@link pinsIdentity}. */
  readonly identity: string
  /** Leaves pinned what was before. */
  undo(): void
}

/**
 * Pins blocks of a data file, beside those that are pinned already, and waits until every write that was begun before has ended: then no process of ours writes there any more. Undefined, with nothing added, when a
 * write does not end in time, the file system has no locks, or the pins that are there are of a file of another size. `fd` is the open data file, `size` its length. Throws what the system says.
 */
export async function pinBlocks(
  of: { readonly directory: string; readonly blobId: string; readonly fd: number; readonly size: number },
  blocks: BlockSet,
  timeoutMs: number,
): Promise<AddedPins | undefined> {
  const path = cachePath(of.directory, of.blobId, 'pins')
  const found = readPins(path)
  const before = found instanceof BlockSet ? found.bits.slice() : undefined
  const all = found instanceof BlockSet ? found : new BlockSet(of.size)
  if (all.bits.length !== blocks.bits.length) return undefined
  const isMore = all.addAll(blocks)
  if (isMore || found !== all) placeFile(path, [MAGIC, all.bits], 'replace')
  const undo = (): void => {
    if (before === undefined) rmSync(path, { force: true })
    else if (isMore) placeFile(path, [MAGIC, before], 'replace')
  }
  const identity = identityOf(path)
  if (identity !== undefined && (await writesEnded(of.fd, timeoutMs))) return { identity, undo }
  undo()
  return undefined
}

async function writesEnded(fd: number, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  try {
    while (!tryLockFile(fd)) {
      if (performance.now() >= deadline) return false
      await sleep(POLL_MS)
    }
    lockFile(fd, 'unlock')
    return true
  } catch (error) {
    if (error instanceof KernelError) return false
    throw error
  }
}

export function unpin(directory: string, blobId: string): void {
  rmSync(cachePath(directory, blobId, 'pins'), { force: true })
}

/** Writes into one open data file. Each has its turn, which pins wait for. */
export class WriteTurns {
  readonly #fd: number
  readonly #pins: Pins
  #count = 0

  constructor(fd: number, directory: string, blobId: string) {
    this.#fd = fd
    this.#pins = new Pins(cachePath(directory, blobId, 'pins'))
  }

  /** False: something there is pinned, or somebody keeps the lock. After true comes an `end`. Waits only for the lock. */
  begin(offset: number, length: number): boolean | Promise<boolean> {
    if (this.#count === 0 && !this.#lock()) return this.#beginLater(offset, length)
    return this.#enter(offset, length)
  }

  async #beginLater(offset: number, length: number): Promise<boolean> {
    const since = performance.now()
    do {
      if (performance.now() - since >= LOCK_PATIENCE_MS) return false
      await sleep(POLL_MS)
    } while (this.#count === 0 && !this.#lock())
    return this.#enter(offset, length)
  }

  /** The look comes after the lock: whoever pinned before waits for us, or is seen here. */
  #enter(offset: number, length: number): boolean {
    if (this.#pins.touch(offset, length)) {
      if (this.#count === 0) this.#unlock()
      return false
    }
    this.#count += 1
    return true
  }

  end(): void {
    this.#count -= 1
    if (this.#count === 0) this.#unlock()
  }

  #lock(): boolean {
    try {
      return tryLockFile(this.#fd, 'shared')
    } catch (error) {
      if (error instanceof KernelError) return true // without locks nobody can pin
      throw error
    }
  }

  #unlock(): void {
    try {
      lockFile(this.#fd, 'unlock')
    } catch (error) {
      if (!(error instanceof KernelError)) throw error // it was not locked
    }
  }
}

function identityOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found && `${found.dev} ${found.ino} ${found.size} ${found.mtimeNs}`
}

type Found = BlockSet | 'none' | 'garbage'

function readPins(path: string): Found {
  try {
    const bytes = readFileSync(path)
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return 'garbage'
    return new BlockSet(0, new Uint8Array(bytes.subarray(MAGIC.length)))
  } catch (error) {
    if (errnoName(error) === undefined) throw error
    return errnoName(error) === 'ENOENT' ? 'none' : 'garbage'
  }
}
