import { type FileReply, type FileRequest, type WireAttributes } from '../../kernel/index.ts'

/** A file system of the files thread: one mount, in one slot of the session. */
export interface FileServer {
  /**
   * What must be fetched before {@link answer} can be called, if anything. From then to the answer the thread does nothing else. Rejects when it cannot be had: the request is answered with EIO.
   */
  prepare(request: FileRequest): Promise<void> | undefined
  /** Writes the body of the answer and gives its length, or minus an errno, or {@link ANSWERED_ELSEWHERE}. It never waits for more than the host's file systems. */
  answer(request: FileRequest, reply: FileReply): number
  /** LOOKUP of the mount's root, from the directory above it. */
  answerRoot(reply: FileReply): number
  forget(node: number, lookups: number): void
  /** The session's own file system, `major:minor`, is known. */
  setOwnDevice(device: string): void
  /** Closes everything. */
  end(): void
  /** Closes everything; another process goes on with it. */
  leave(): void
}

/** The request went to somebody else, who answers it. */
export const ANSWERED_ELSEWHERE = -4096

/** Node ids of a slot: the root is 1, as that of the session. */
export const ROOT_NODE = 1

/** The kernel's id of a node: its number, and the slot in the top byte; the session's root (node 1 of the mount at `/`) has both. */
export function entryOf(slot: number, node: number, seconds: number): { low: number; high: number; seconds: number } {
  return { low: node % 2 ** 32, high: (Math.floor(node / 2 ** 32) | (slot << 24)) >>> 0, seconds }
}

/** Numbers that users see, of files of several devices in one file system: the first device's are its own, as far as they have 48 bits. */
export class InodeNumbers {
  readonly #slot: number
  readonly #devices = new Map<string, number>()
  /** Of files whose own number does not fit. */
  readonly #given = new Map<string, number>()
  #last = 0

  constructor(slot: number) {
    this.#slot = slot
  }

  /** Writes the number of a file; the same file has the same one as long as somebody knows it. */
  fill(attributes: WireAttributes, device: string, low: number, high: number): void {
    const [shownLow, shownHigh] = this.words(device, low, high)
    attributes.number(shownLow, shownHigh)
  }

  /** Low and high word. */
  words(device: string, low: number, high: number): [low: number, high: number] {
    let index = this.#devices.get(device)
    if (index === undefined) {
      index = this.#devices.size
      this.#devices.set(device, index)
    }
    if (high < 1 << 16 && index < OWN_NUMBERS) return [low, ((this.#slot << 24) | (index << 16) | high) >>> 0]
    const key = `${device}:${high}:${low}`
    let given = this.#given.get(key)
    if (given === undefined) {
      if (this.#given.size >= MOST_GIVEN) this.#given.clear()
      given = ++this.#last
      this.#given.set(key, given)
    }
    return [given % 2 ** 32, ((this.#slot << 24) | (OWN_NUMBERS << 16) | Math.floor(given / 2 ** 32)) >>> 0]
  }
}

/** Devices whose numbers are shown as they are. */
const OWN_NUMBERS = 255
const MOST_GIVEN = 1 << 20
