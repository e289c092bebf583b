/** Network block devices: the kernel's driver, and what it says. Numbers and layouts: docs/formats/nbd.md. */
import { closeSync, openSync, statSync } from 'node:fs'
import { check, later } from '../syscall.ts'
import { calls } from './calls.ts'
import { socketPair } from './unix-stream.ts'

/** Kinds of requests, and errors of answers. */
export const NBD = { READ: 0, WRITE: 1, DISCONNECT: 2, EPERM: 1, EIO: 5, EINVAL: 22 } as const

/** Big-endian: magic 0, type 4 (u32), cookie 8, offset 16 (u64), length 24 (u32). */
const REQUEST = { size: 28, magic: 0, type: 4, cookie: 8, offset: 16, length: 24 } as const
/** Big-endian: magic 0, error 4 (u32), cookie 8 (u64). */
const REPLY = { size: 16, magic: 0, error: 4, cookie: 8 } as const
const REQUEST_MAGIC = 0x25609513
const REPLY_MAGIC = 0x67446698

export interface NbdRequest {
  readonly isMagic: boolean
  readonly type: number
  readonly cookie: Uint8Array
  /** Above 2^53 not exact, and beyond every disk. */
  readonly offset: number
  readonly length: number
}

/** The head of an answer; data follows when `error` is 0. */
export function nbdReply({ cookie }: NbdRequest, error: number): Buffer {
  const reply = Buffer.alloc(REPLY.size)
  reply.writeUInt32BE(REPLY_MAGIC, REPLY.magic)
  reply.writeUInt32BE(error, REPLY.error)
  reply.set(cookie, REPLY.cookie)
  return reply
}

/** Cuts a stream into requests; what is written to the disk is left out of it. */
export class NbdRequests {
  readonly #head = Buffer.alloc(REQUEST.size)
  #have = 0
  #skip = 0

  push(bytes: Uint8Array): NbdRequest[] {
    const found: NbdRequest[] = []
    for (let at = 0; at < bytes.length; ) {
      const skipped = Math.min(this.#skip, bytes.length - at)
      this.#skip -= skipped
      at += skipped
      const taken = Math.min(REQUEST.size - this.#have, bytes.length - at)
      this.#head.set(bytes.subarray(at, at + taken), this.#have)
      this.#have += taken
      at += taken
      if (this.#have < REQUEST.size) break
      this.#have = 0
      const request = parse(this.#head)
      if (request.isMagic && request.type === NBD.WRITE) this.#skip = request.length
      found.push(request)
    }
    return found
  }
}

function parse(head: Buffer): NbdRequest {
  return {
    isMagic: head.readUInt32BE(REQUEST.magic) === REQUEST_MAGIC,
    type: head.readUInt32BE(REQUEST.type) & 0xffff, // flags stand above
    cookie: Uint8Array.from(head.subarray(REQUEST.cookie, REQUEST.cookie + 8)),
    offset: Number(head.readBigUInt64BE(REQUEST.offset)),
    length: head.readUInt32BE(REQUEST.length),
  }
}

export interface NbdDiskFacts {
  /** Bytes. */
  readonly blockSize: number
  readonly blocks: number
}

const IOCTL = {
  SET_SOCK: 0xab00,
  SET_BLOCK_SIZE: 0xab01,
  DO_IT: 0xab03,
  CLEAR_SOCK: 0xab04,
  SET_BLOCKS: 0xab07,
  DISCONNECT: 0xab08,
  SET_TIMEOUT: 0xab09,
  SET_FLAGS: 0xab0a,
} as const
const FLAGS = { HAS_FLAGS: 1, READ_ONLY: 2, CAN_MULTI_CONN: 0x100 } as const
const TIMEOUT_S = 60

/** What keeps a path from being a network block device; undefined = nothing. */
export function whyNoNbd(path: string): string | undefined {
  const found = statSync(path, { throwIfNoEntry: false })
  if (found === undefined)
    return `${path} is not here; load the driver with "modprobe nbd" (a kernel without it, CONFIG_BLK_DEV_NBD, cannot do this)`
  if (!found.isBlockDevice()) return `${path} is no block device; give one like /dev/nbd0`
  return undefined
}

/** A read-only network block device that this process serves. */
export class NbdDevice {
  readonly #path: string
  readonly #fd: number

  /** Throws KernelError, as opening the path does. */
  constructor(path: string, { blockSize, blocks }: NbdDiskFacts) {
    this.#path = path
    this.#fd = openSync(path, 'r+')
    try {
      this.#set(IOCTL.SET_BLOCK_SIZE, blockSize)
      this.#set(IOCTL.SET_BLOCKS, blocks)
      this.#set(IOCTL.SET_TIMEOUT, TIMEOUT_S)
      this.#set(IOCTL.CLEAR_SOCK, 0)
      this.#set(IOCTL.SET_FLAGS, FLAGS.HAS_FLAGS | FLAGS.READ_ONLY | FLAGS.CAN_MULTI_CONN)
    } catch (error) {
      closeSync(this.#fd)
      throw error
    }
  }

  /** Adds a connection; gives our end, which the caller closes. Throws KernelError. */
  connect(): number {
    const [theirs, ours] = socketPair()
    try {
      this.#set(IOCTL.SET_SOCK, theirs)
      return ours
    } catch (error) {
      closeSync(ours)
      throw error
    } finally {
      closeSync(theirs) // the driver has its own
    }
  }

  /** Lets the kernel ask; resolves when it does no more. Throws KernelError. */
  async serve(): Promise<void> {
    await later(calls().ioctl, 'NBD_DO_IT', `${this.#path} is not served`, this.#fd, IOCTL.DO_IT, 0)
  }

  /** Ends the device; failures change nothing. */
  close(): void {
    for (const request of [IOCTL.DISCONNECT, IOCTL.CLEAR_SOCK]) calls().ioctl(this.#fd, request, 0)
    closeSync(this.#fd)
  }

  #set(request: number, value: number): void {
    check(calls().ioctl(this.#fd, request, value), 'ioctl', `${this.#path} cannot be used as a network block device`)
  }
}
