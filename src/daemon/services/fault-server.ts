import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError } from '../../kernel/index.ts'
import { addressOf, UserFaults, type UnixStream } from '../../kernel/vm/index.ts'
import { messageOf } from '../errors.ts'
import { readDisk } from './disk-read.ts'
import type { ImageDisk } from './image-disk.ts'
import { type DiskRange, type FilePiece, PAGE } from './page-map.ts'
import { MAX_RANGES, pageFaultAnswer, type Region } from './uffd-protocol.ts'

export interface FaultServerOptions {
  readonly regions: readonly Region[]
  /** Pages are copied; else the monitor is told which files to map. */
  readonly isCopy: boolean
  readonly disk: ImageDisk
  readonly stream: UnixStream
  readonly onError: (text: string) => void
  /** There will be no faults any more. */
  readonly onEnd: (why: string) => void
}

/** What one fault brings. */
interface Window extends DiskRange {
  readonly region: Region
}

const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 10_000
const MAX_QUEUED = 64
const PREFAULT_BYTES = 8 << 20
/** The address is no longer mapped, or its process is gone: nobody waits. */
const NOBODY = new Set(['ENOENT', 'ESRCH'])

/**
 * Answers the page faults of one monitor. A fault whose data cannot be had is tried again, with growing pauses, as long as the monitor is there: its thread waits meanwhile, as it would for a slow
 * disk, and never gets a page that was not verified.
 */
export class FaultServer {
  readonly #options: FaultServerOptions
  readonly #faults: UserFaults
  readonly #closing = new AbortController()
  readonly #underWay = new Set<number>()

  /** Owns the descriptor, also when it throws KernelError. */
  constructor(fd: number, options: FaultServerOptions) {
    this.#options = options
    this.#faults = new UserFaults(fd)
    try {
      this.#faults.listen(
        (address) => this.#fault(address),
        (why) => options.onEnd(why === undefined ? 'its userfaultfd has ended' : messageOf(why)),
      )
    } catch (error) {
      this.#faults.close()
      throw error
    }
  }

  close(): void {
    this.#closing.abort()
    this.#faults.close()
  }

  /** Tells of everything that is at hand, so that it never faults. */
  async prefault(): Promise<void> {
    try {
      await this.#prefault()
    } catch (error) {
      this.#options.onError(`cannot tell of what is at hand, which is left to faults: ${messageOf(error)}`)
    }
  }

  async #prefault(): Promise<void> {
    const { disk, regions } = this.#options
    for (const region of regions) {
      const end = Math.min(region.size, disk.size - region.offset)
      for (let at = 0; at < end && !this.#closing.signal.aborted; at += PREFAULT_BYTES) {
        const length = Math.floor(Math.min(PREFAULT_BYTES, end - at) / PAGE) * PAGE
        if (length > 0) await this.#tell(disk.piecesNow({ offset: region.offset + at, length }).files)
        await sleep(0) // faults go first
      }
    }
  }

  #fault(address: number): void {
    const { regions, onError } = this.#options
    const region = regions.find(({ base, size }) => address >= base && address < base + size)
    if (region === undefined) return onError(`a fault at 0x${address.toString(16)} is in none of its regions`)
    const { base, offset, pageSize, size } = region
    const start = Math.floor((address - base) / pageSize) * pageSize
    // A region that ends within a page was mapped to the page's end.
    const length = Math.ceil(Math.min(pageSize, size - start) / PAGE) * PAGE
    const window = { region, offset: offset + start, length }
    const key = base + start
    if (this.#underWay.has(key)) return
    this.#underWay.add(key)
    void this.#serve(window).finally(() => this.#underWay.delete(key))
  }

  async #serve(window: Window): Promise<void> {
    const { signal } = this.#closing
    for (let pauseMs = FIRST_PAUSE_MS; !signal.aborted; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        return await (this.#options.isCopy ? this.#copy(window, window) : this.#map(window))
      } catch (error) {
        if (signal.aborted) return undefined
        if (error instanceof KernelError && NOBODY.has(error.code)) return undefined
        this.#options.onError(
          `cannot bring bytes ${window.offset} to ${window.offset + window.length} yet: ${messageOf(error)}`,
        )
        await sleep(pauseMs, undefined, { signal }).catch(() => undefined) // closed meanwhile
      }
    }
  }

  /** Tells the monitor what to map; what is in no file is filled in. */
  async #map(window: Window): Promise<void> {
    const { disk } = this.#options
    const within = clip(window, disk.size)
    if (within.length > 0) {
      const { files, zeros, copies } = await disk.pieces(within, this.#closing.signal)
      for (const range of zeros) await this.#zero(window, range)
      for (const range of copies) await this.#copy(window, range)
      await this.#tell(files)
    }
    if (within.length < window.length)
      await this.#zero(window, { offset: within.offset + within.length, length: window.length - within.length })
  }

  /** A monitor that is slow to read is not told faster. */
  async #tell(files: readonly FilePiece[]): Promise<void> {
    for (let at = 0; at < files.length; at += MAX_RANGES) {
      while (this.#options.stream.queued > MAX_QUEUED && !this.#closing.signal.aborted) await sleep(10)
      const some = files.slice(at, at + MAX_RANGES)
      this.#options.stream.send(
        pageFaultAnswer(some),
        some.map(({ fd }) => fd),
      )
    }
  }

  async #copy({ region }: Window, range: DiskRange): Promise<void> {
    const { signal } = this.#closing
    const bytes = await readDisk(this.#options.disk, range, signal)
    if (!signal.aborted) this.#faults.copy(region.base + range.offset - region.offset, addressOf(bytes), range.length)
  }

  async #zero(window: Window, range: DiskRange): Promise<void> {
    const { region } = window
    if (!this.#faults.zero(region.base + range.offset - region.offset, range.length)) await this.#copy(window, range)
  }
}

/** The whole pages of a range that the disk has a part of. */
function clip({ offset, length }: DiskRange, size: number): DiskRange {
  return { offset, length: Math.max(0, Math.min(length, Math.ceil((size - offset) / PAGE) * PAGE)) }
}
