/**
 * Unix stream sockets that carry descriptors (SCM_RIGHTS), on the event loop: Node's own drop them. Sources: unix(7), cmsg(3), the layouts of struct msghdr and struct cmsghdr on 64-bit Linux.
 */
import { closeSync, lstatSync, rmSync } from 'node:fs'
import { KernelError } from '../errors.ts'
import { check, libc } from '../syscall.ts'
import { calls, type PollHandle, watch } from './calls.ts'

const AF_UNIX = 1
const STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000
const NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x4000_0000
const ERRNO = { EINTR: 4, EAGAIN: 11, ENAMETOOLONG: 36, ECONNABORTED: 103, EMFILE: 24, ENFILE: 23 } as const
const BACKLOG = 128
const FULL_PAUSE_MS = 100
/** `sun_path` has 108 bytes, the last one NUL. */
const MAX_PATH_BYTES = 107
/** name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48: 56 bytes. */
const MSGHDR = { size: 56, iov: 16, iovCount: 24, control: 32, controlLength: 40 } as const
/** len 0 (u64, with the header), level 8, type 12 (i32 each): 16 bytes, then the data, padded to 8. */
const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const
/** The kernel's own limit of descriptors in a message is 253: none is lost. */
const MAX_DESCRIPTORS = 253
/** An end that does not read what it asked for is given up. */
const MAX_QUEUED = 4096

/** What a read found. `length` 0 = the other end has closed. The descriptors are the caller's. */
export interface Received {
  readonly length: number
  readonly descriptors: readonly number[]
}

interface Outgoing {
  readonly data: Uint8Array
  readonly descriptors: readonly number[]
}

export interface UnixStreamEvents {
  /** There is something to read, or the end. */
  readonly onReadable: () => void
  /** What was queued cannot be sent; `close` is the caller's. */
  readonly onError: (error: KernelError) => void
}

/** One connection; its owner closes it. Descriptors that are sent stay the sender's, and open until `close` or until they are sent. */
export class UnixStream {
  readonly fd: number
  readonly #queue: Outgoing[] = []
  #events: UnixStreamEvents | undefined
  #poll: PollHandle | undefined
  #isClosed = false

  constructor(fd: number) {
    this.fd = fd
  }

  /** Starts to tell of events. Once. */
  listen(events: UnixStreamEvents): void {
    this.#events = events
    this.#watch()
  }

  /** Reads at most `into.length` bytes; undefined = nothing is there now. Throws KernelError. */
  receive(into: Uint8Array): Received | undefined {
    if (this.#isClosed) return { length: 0, descriptors: [] }
    const control = Buffer.alloc(CMSGHDR.size + 4 * MAX_DESCRIPTORS + 4)
    const message = new Message(into, control)
    for (;;) {
      const length = calls().recvmsg(this.fd, message.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
      if (length >= 0) return { length, descriptors: message.descriptors(control) }
      const errno = libc().errno()
      if (errno === ERRNO.EAGAIN) return undefined
      if (errno !== ERRNO.EINTR) throw new KernelError('recvmsg', errno, 'the other end of a socket is gone')
    }
  }

  /** Sends in order; what the other end does not take yet waits. The descriptors go with the first byte. */
  send(data: Uint8Array, descriptors: readonly number[] = []): void {
    if (this.#isClosed) return
    this.#queue.push({ data, descriptors })
    if (this.#queue.length === 1) this.#flush()
    else if (this.#queue.length > MAX_QUEUED)
      this.#fail(new KernelError('sendmsg', ERRNO.ECONNABORTED, 'the other end of a socket does not read'))
  }

  /** Messages that the other end did not take yet. */
  get queued(): number {
    return this.#queue.length
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#queue.length = 0
    this.#poll?.close()
    closeSync(this.fd)
  }

  #watch(): void {
    const events = { readable: true, writable: this.#queue.length > 0 }
    const told = (status: number, { readable, writable }: { readable: boolean; writable: boolean }): void => {
      if (writable && this.#queue.length > 0) this.#flush()
      if ((readable || status !== 0) && !this.#isClosed) this.#events?.onReadable()
    }
    if (this.#poll === undefined) this.#poll = watch(this.fd, events, told)
    else this.#poll.start(events, told)
  }

  #flush(): void {
    const hadToWait = this.#poll !== undefined && this.#queue.length > 0
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const { data, descriptors } = first
      const control = descriptors.length === 0 ? undefined : controlOf(descriptors)
      const message = new Message(data, control)
      const sent = calls().sendmsg(this.fd, message.header, MSG_DONTWAIT | MSG_NOSIGNAL)
      if (sent < 0) {
        const errno = libc().errno()
        if (errno === ERRNO.EINTR) continue
        if (errno === ERRNO.EAGAIN) break
        this.#fail(new KernelError('sendmsg', errno, 'the other end of a socket is gone'))
        return
      }
      if (sent === data.length) this.#queue.shift()
      else this.#queue[0] = { data: data.subarray(sent), descriptors: [] }
    }
    if (hadToWait && !this.#isClosed) this.#watch()
  }

  #fail(error: KernelError): void {
    this.#queue.length = 0
    this.#events?.onError(error)
  }
}

/** A socket that is listened on. What lay at its path and was a socket is replaced. */
export class UnixListener {
  readonly #fd: number
  readonly #path: string
  readonly #inode: bigint | undefined
  readonly #poll: PollHandle
  #isClosed = false

  private constructor(fd: number, path: string, onConnection: (stream: UnixStream) => void) {
    this.#fd = fd
    this.#path = path
    this.#inode = inodeOf(path)
    const accept = (): void => {
      for (;;) {
        const connection = calls().accept4(fd, 0, 0, NONBLOCK_CLOEXEC)
        if (connection >= 0) {
          onConnection(new UnixStream(connection))
          continue
        }
        const errno = libc().errno()
        if (errno === ERRNO.EINTR || errno === ERRNO.ECONNABORTED) continue
        if (errno === ERRNO.EMFILE || errno === ERRNO.ENFILE) this.#pause(accept)
        return
      }
    }
    this.#poll = watch(fd, { readable: true }, accept)
  }

  /** No descriptor is free: who wants to connect waits, and this process does not spin. */
  #pause(accept: () => void): void {
    this.#poll.stop()
    setTimeout(() => {
      if (!this.#isClosed) this.#poll.start({ readable: true }, accept)
    }, FULL_PAUSE_MS).unref()
  }

  /** The socket gets mode 0600. Throws KernelError. */
  static listen(path: string, onConnection: (stream: UnixStream) => void): UnixListener {
    const address = addressOf(path)
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path)
    const fd = check(calls().socket(AF_UNIX, STREAM_NONBLOCK_CLOEXEC, 0), 'socket', 'cannot make a socket')
    const mask = process.umask(0o177)
    try {
      check(calls().bind(fd, address, address.length), 'bind', `cannot listen at ${path}`)
      check(calls().listen(fd, BACKLOG), 'listen', `cannot listen at ${path}`)
    } catch (error) {
      closeSync(fd)
      throw error
    } finally {
      process.umask(mask)
    }
    return new UnixListener(fd, path, onConnection)
  }

  /** `with its name` removes the socket; not another daemon's, who took its place. */
  close(name?: 'with its name'): void {
    if (name !== undefined && this.#inode !== undefined && inodeOf(this.#path) === this.#inode) rmSync(this.#path)
    this.#isClosed = true
    this.#poll.close()
    closeSync(this.#fd)
  }
}

function inodeOf(path: string): bigint | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino
}

/** Connects to a listening socket. Throws KernelError. */
export function connectStream(path: string): UnixStream {
  const address = addressOf(path)
  const fd = check(calls().socket(AF_UNIX, STREAM_NONBLOCK_CLOEXEC, 0), 'socket', 'cannot make a socket')
  try {
    check(calls().connect(fd, address, address.length), 'connect', `cannot connect to ${path}`)
    return new UnixStream(fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Two connected ends, as descriptors that the caller closes. Throws KernelError. */
export function socketPair(): readonly [number, number] {
  const ends = Buffer.alloc(8)
  check(calls().socketpair(AF_UNIX, STREAM_NONBLOCK_CLOEXEC, 0, ends), 'socketpair', 'cannot make sockets')
  return [ends.readInt32LE(0), ends.readInt32LE(4)]
}

function addressOf(path: string): Buffer {
  const name = Buffer.from(path)
  if (name.length > MAX_PATH_BYTES || name.includes(0))
    throw new KernelError(
      'bind',
      ERRNO.ENAMETOOLONG,
      `${path} is no path of a socket, which has at most ${MAX_PATH_BYTES} bytes`,
    )
  const address = Buffer.alloc(2 + name.length + 1)
  address.writeUInt16LE(AF_UNIX, 0)
  address.set(name, 2)
  return address
}

function controlOf(descriptors: readonly number[]): Buffer {
  const control = Buffer.alloc(CMSGHDR.size + Math.ceil(descriptors.length / 2) * 8)
  control.writeBigUInt64LE(BigInt(CMSGHDR.size + 4 * descriptors.length), CMSGHDR.length)
  control.writeInt32LE(SOL_SOCKET, CMSGHDR.level)
  control.writeInt32LE(SCM_RIGHTS, CMSGHDR.type)
  descriptors.forEach((fd, index) => control.writeInt32LE(fd, CMSGHDR.size + 4 * index))
  return control
}

/** A struct msghdr, which keeps alive all that it points to. */
class Message {
  readonly header = Buffer.alloc(MSGHDR.size)
  readonly #vector = Buffer.alloc(16)
  readonly #parts: ReadonlyArray<Uint8Array | undefined>

  constructor(data: Uint8Array, control: Buffer | undefined) {
    const c = libc()
    this.#parts = [data, control, this.#vector]
    this.#vector.writeBigUInt64LE(BigInt(c.address(data)), 0)
    this.#vector.writeBigUInt64LE(BigInt(data.length), 8)
    this.header.writeBigUInt64LE(BigInt(c.address(this.#vector)), MSGHDR.iov)
    this.header.writeBigUInt64LE(1n, MSGHDR.iovCount)
    if (control === undefined) return
    this.header.writeBigUInt64LE(BigInt(c.address(control)), MSGHDR.control)
    this.header.writeBigUInt64LE(BigInt(control.length), MSGHDR.controlLength)
  }

  /** What a recvmsg left in the control buffer. */
  descriptors(control: Buffer): number[] {
    const found: number[] = []
    if (this.#parts.length === 0) return found
    const end = Math.min(Number(this.header.readBigUInt64LE(MSGHDR.controlLength)), control.length)
    for (let at = 0; at + CMSGHDR.size <= end; ) {
      const length = Number(control.readBigUInt64LE(at + CMSGHDR.length))
      if (length < CMSGHDR.size || at + length > end) break
      const isRights =
        control.readInt32LE(at + CMSGHDR.level) === SOL_SOCKET && control.readInt32LE(at + CMSGHDR.type) === SCM_RIGHTS
      const rightsEnd = isRights ? at + length : at
      for (let item = at + CMSGHDR.size; item + 4 <= rightsEnd; item += 4) found.push(control.readInt32LE(item))
      at += (length + 7) & ~7
    }
    return found
  }
}
