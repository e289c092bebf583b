/** Page faults of another process, by its userfaultfd. Numbers and layouts: docs/formats/userfault.md. */
import { closeSync } from 'node:fs'
import { waitInReads } from '../descriptor-flags.ts'
import { KernelError } from '../errors.ts'
import { libc } from '../syscall.ts'
import { calls, type PollHandle, watch } from './calls.ts'

const UFFDIO = { COPY: 0xc028aa03, ZEROPAGE: 0xc020aa04, WAKE: 0x8010aa02 } as const
const UFFD_EVENT_PAGEFAULT = 0x12
/** event 0 (u8), flags 8, address 16, feat 24: 32 bytes. */
const MESSAGE = { size: 32, event: 0, address: 16 } as const
const MESSAGES = 64
/** dst 0, src 8, len 16, mode 24, copy 32 (i64). */
const COPY = { destination: 0, source: 8, length: 16, mode: 24, copied: 32, size: 40 } as const
/** start 0, len 8, mode 16, zeropage 24 (i64). */
const ZERO = { start: 0, length: 8, mode: 16, zeroed: 24, size: 32 } as const
const ERRNO = { EINTR: 4, EAGAIN: 11, EEXIST: 17, EINVAL: 22 } as const
/** Only when a process changes its address space in between: it ends soon. */
const MAX_TRIES = 1000

/** The faults of one address space. Pages are filled at the address where they are missing; a page that is there already is left alone, and whoever waits for it is woken. */
export class UserFaults {
  readonly #fd: number
  readonly #argument = Buffer.alloc(COPY.size)
  readonly #messages = Buffer.alloc(MESSAGES * MESSAGE.size)
  #poll: PollHandle | undefined
  #isClosed = false

  /** Owns the descriptor from now on, also when it throws KernelError. */
  constructor(fd: number) {
    this.#fd = fd
    try {
      waitInReads(fd, false)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /** Starts to tell of faults, by address; `onEnd` when there will be none any more. Once. Throws KernelError for a descriptor that tells nothing. */
  listen(onFault: (address: number) => void, onEnd: (why: KernelError | undefined) => void): void {
    this.#poll = watch(this.#fd, { readable: true }, () => this.#read(onFault, onEnd))
  }

  /** Fills `[address, address + length)`, whole pages, from native memory at `source`. Throws KernelError. */
  copy(address: number, source: number, length: number): void {
    this.#fill(length, 'UFFDIO_COPY', (done) => {
      this.#argument.writeBigUInt64LE(BigInt(address + done), COPY.destination)
      this.#argument.writeBigUInt64LE(BigInt(source + done), COPY.source)
      this.#argument.writeBigUInt64LE(BigInt(length - done), COPY.length)
      this.#argument.writeBigUInt64LE(0n, COPY.mode)
      this.#argument.writeBigInt64LE(0n, COPY.copied)
      return { request: UFFDIO.COPY, result: COPY.copied, address: address + done }
    })
  }

  /** Fills with zeros. False where such pages cannot be had (huge ones): copy zeros instead. Throws KernelError. */
  zero(address: number, length: number): boolean {
    try {
      this.#fill(length, 'UFFDIO_ZEROPAGE', (done) => {
        this.#argument.writeBigUInt64LE(BigInt(address + done), ZERO.start)
        this.#argument.writeBigUInt64LE(BigInt(length - done), ZERO.length)
        this.#argument.writeBigUInt64LE(0n, ZERO.mode)
        this.#argument.writeBigInt64LE(0n, ZERO.zeroed)
        return { request: UFFDIO.ZEROPAGE, result: ZERO.zeroed, address: address + done }
      })
      return true
    } catch (error) {
      if (error instanceof KernelError && error.errno === ERRNO.EINVAL) return false
      throw error
    }
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#poll?.close()
    closeSync(this.#fd)
  }

  #read(onFault: (address: number) => void, onEnd: (why: KernelError | undefined) => void): void {
    const got = libc().read(this.#fd, libc().address(this.#messages), this.#messages.length)
    if (got < 0) {
      const errno = libc().errno()
      if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return
      this.#poll?.stop()
      onEnd(new KernelError('read', errno, 'a userfaultfd tells no faults'))
      return
    }
    if (got === 0) {
      this.#poll?.stop()
      onEnd(undefined)
      return
    }
    for (let at = 0; at + MESSAGE.size <= got && !this.#isClosed; at += MESSAGE.size)
      if (this.#messages[at + MESSAGE.event] === UFFD_EVENT_PAGEFAULT)
        onFault(Number(this.#messages.readBigUInt64LE(at + MESSAGE.address)))
  }

  #fill(
    length: number,
    call: string,
    prepare: (done: number) => { request: number; result: number; address: number },
  ): void {
    let tries = 0
    let isThere = false
    for (let done = 0; done < length && !this.#isClosed; ) {
      const { request, result, address } = prepare(done)
      if (calls().ioctl(this.#fd, request, libc().address(this.#argument)) === 0) return
      const errno = libc().errno()
      const filled = Number(this.#argument.readBigInt64LE(result))
      // EINVAL behind a page that is there: both are in one huge page
      isThere = filled <= 0 && (errno === ERRNO.EEXIST || (isThere && errno === ERRNO.EINVAL))
      if (filled > 0) done += filled
      else if (isThere) {
        this.#wake(address)
        done += PAGE
      } else if (errno !== ERRNO.EAGAIN || ++tries > MAX_TRIES)
        throw new KernelError(call, errno, `cannot fill the page at 0x${address.toString(16)}`)
    }
  }

  /** A page that is there: whoever faulted meanwhile may not have noticed. */
  #wake(address: number): void {
    this.#argument.writeBigUInt64LE(BigInt(address), 0)
    this.#argument.writeBigUInt64LE(BigInt(PAGE), 8)
    calls().ioctl(this.#fd, UFFDIO.WAKE, libc().address(this.#argument))
  }
}

const PAGE = 4096
