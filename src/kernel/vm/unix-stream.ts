/** Unix stream sockets that carry descriptors, on the event loop: Node's own drop them. */
import { closeSync, lstatSync, rmSync } from 'node:fs'
import { KernelError } from '../errors.ts'
import { type Received, receiveNow, sendNow, UNIX_STREAM, unixAddress, unixSocket } from '../socket-message.ts'
import { check, libc } from '../syscall.ts'
import { calls, type PollHandle, watch } from './calls.ts'

const NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
const ERRNO = { EINTR: 4, EAGAIN: 11, ECONNABORTED: 103, EMFILE: 24, ENFILE: 23 } as const
const BACKLOG = 128
const FULL_PAUSE_MS = 100
/** An end that does not read what it asked for is given up. */
const MAX_QUEUED = 4096

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
  /** Told when the other end takes more. */
  #waitsToWrite = false
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
    for (;;) {
      const received = receiveNow(this.fd, into)
      if (received.length >= 0) return received
      const errno = -received.length
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
    this.#waitsToWrite = this.#queue.length > 0
    const events = { readable: true, writable: this.#waitsToWrite }
    const told = (status: number, { readable, writable }: { readable: boolean; writable: boolean }): void => {
      if (writable && this.#queue.length > 0) this.#flush()
      if ((readable || status !== 0) && !this.#isClosed) this.#events?.onReadable()
    }
    if (this.#poll === undefined) this.#poll = watch(this.fd, events, told)
    else this.#poll.start(events, told)
  }

  #flush(): void {
    for (let first = this.#queue[0]; first !== undefined; first = this.#queue[0]) {
      const { data, descriptors } = first
      const sent = sendNow(this.fd, data, descriptors)
      if (sent < 0) {
        const errno = -sent
        if (errno === ERRNO.EINTR) continue
        if (errno === ERRNO.EAGAIN) break
        this.#fail(new KernelError('sendmsg', errno, 'the other end of a socket is gone'))
        return
      }
      if (sent === data.length) this.#queue.shift()
      else this.#queue[0] = { data: data.subarray(sent), descriptors: [] }
    }
    if (this.#poll !== undefined && this.#waitsToWrite !== this.#queue.length > 0) this.#watch()
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
    const address = unixAddress(path, 'bind')
    if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path)
    const fd = unixSocket()
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
  const address = unixAddress(path, 'connect')
  const fd = unixSocket()
  try {
    check(libc().connect(fd, address, address.length), 'connect', `cannot connect to ${path}`)
    return new UnixStream(fd)
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Two connected ends, as descriptors that the caller closes. Throws KernelError. */
export function socketPair(): readonly [number, number] {
  const ends = Buffer.alloc(8)
  check(calls().socketpair(...UNIX_STREAM, ends), 'socketpair', 'cannot make sockets')
  return [ends.readInt32LE(0), ends.readInt32LE(4)]
}
