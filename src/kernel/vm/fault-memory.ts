/** For tests: memory whose missing pages another process brings, as a virtual machine monitor has it. Layouts: docs/formats/userfault.md. */
import { closeSync, ftruncateSync, writeSync } from 'node:fs'
import { check, libc } from '../syscall.ts'
import { calls, viewMemory } from './calls.ts'

const SYS_USERFAULTFD = process.arch === 'arm64' ? 282 : 323
const O_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
const UFFDIO = { API: 0xc018aa3f, REGISTER: 0xc020aa00, WAKE: 0x8010aa02 } as const
const PROT_READ_WRITE = 3
const PROT_READ = 1
const MAP = { PRIVATE_ANONYMOUS: 0x22, PRIVATE_FIXED: 0x12, HUGETLB: 0x40000 } as const

/** Memory without pages, and the userfaultfd that tells when one is touched. Touch it on a thread that need not answer anything: it waits for the page. */
export class FaultMemory {
  readonly fd: number
  readonly address: number
  readonly size: number
  #isAbandoned = false

  /** Throws KernelError where this process may have no userfaultfd, or there are not so many huge pages. */
  constructor(size: number, pages: 'small' | 'huge' = 'small') {
    const c = calls()
    this.size = size
    this.fd = check(c.syscall(SYS_USERFAULTFD, O_CLOEXEC_NONBLOCK), 'userfaultfd', 'there is no userfaultfd')
    const api = Buffer.alloc(24)
    api.writeBigUInt64LE(0xaan, 0)
    check(c.ioctl(this.fd, UFFDIO.API, libc().address(api)), 'UFFDIO_API', 'the userfaultfd is of another kind')
    const flags = MAP.PRIVATE_ANONYMOUS | (pages === 'huge' ? MAP.HUGETLB : 0)
    this.address = check(c.mmap(0, size, PROT_READ_WRITE, flags, -1, 0), 'mmap', 'no memory')
    const register = Buffer.alloc(32)
    register.writeBigUInt64LE(BigInt(this.address), 0)
    register.writeBigUInt64LE(BigInt(size), 8)
    register.writeBigUInt64LE(1n, 16) // missing pages
    check(c.ioctl(this.fd, UFFDIO.REGISTER, libc().address(register)), 'UFFDIO_REGISTER', 'memory cannot be watched')
  }

  /** Maps a file's bytes over a part, and wakes who waits there. */
  map(at: number, length: number, fd: number, offset: number): void {
    const address = this.address + at
    check(calls().mmap(address, length, PROT_READ, MAP.PRIVATE_FIXED, fd, offset), 'mmap', 'a file cannot be mapped')
    const range = Buffer.alloc(16)
    range.writeBigUInt64LE(BigInt(address), 0)
    range.writeBigUInt64LE(BigInt(length), 8)
    calls().ioctl(this.fd, UFFDIO.WAKE, libc().address(range))
  }

  /** Brings no more pages: when the other end has let go of the userfaultfd too, those that are missing are zeros, and who waits goes on. */
  abandon(): void {
    if (!this.#isAbandoned) closeSync(this.fd)
    this.#isAbandoned = true
  }

  /** Nobody may touch it any more. */
  close(): void {
    this.abandon()
    calls().munmap(this.address, this.size)
  }
}

/** The bytes at an address of this process, copied. Waits for pages that are missing. */
export function readMemory(address: number, length: number): Buffer {
  return Buffer.from(Buffer.from(viewMemory(address, length)))
}

/** Why there is no such memory here; undefined = there is. */
export function whyNoFaults(size = 4096, pages: 'small' | 'huge' = 'small'): string | undefined {
  try {
    new FaultMemory(size, pages).close()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const MFD_CLOEXEC = 1
const EFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000
const MAP_SHARED = 1

/** Memory in a file that can be given away: a virtual machine's. The mapping stays as long as the process. */
export function sharedMemory(size: number): { readonly fd: number; readonly bytes: ArrayBuffer } {
  const fd = check(libc().memfd_create('guest', MFD_CLOEXEC), 'memfd_create', 'no memory')
  ftruncateSync(fd, size)
  const address = check(calls().mmap(0, size, PROT_READ_WRITE, MAP_SHARED, fd, 0), 'mmap', 'no memory')
  return { fd, bytes: viewMemory(address, size) }
}

/** A new event counter, as a descriptor. */
export function eventCounter(): number {
  return check(calls().eventfd(0, EFD_NONBLOCK_CLOEXEC), 'eventfd', 'no event counter')
}

/** Counts one more event. */
export function countEvent(fd: number): void {
  writeSync(fd, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]))
}
