/** A split virtqueue, seen by the device. Layouts: docs/formats/vhost-user.md, "Queues". */
import { closeSync, readSync, writeSync } from 'node:fs'
import { KernelError } from '../../errors.ts'
import { libc } from '../../syscall.ts'
import { calls, type PollHandle, viewMemory, watch } from '../calls.ts'
import type { GuestMemory } from './guest-memory.ts'

/** address 0 (u64), length 8 (u32), flags 12, next 14 (u16). */
const DESCRIPTOR = { size: 16, address: 0, length: 8, flags: 12, next: 14 } as const
const FLAG = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const
const NO_INTERRUPT = 1
/** Of the rings of both sides, in u16: flags 0, index 1, entries from 2 on. */
const AVAIL = { align: 2, flags: 0, index: 1, ring: 2 } as const
const USED = { align: 4, index: 1, ring: 2 } as const
const EFAULT = 14
const EPROTO = 71
/** Parts of one request; Linux uses up to as many as a queue has. */
const MAX_PARTS = 4096

/** A piece of guest memory that belongs to a request. */
export interface ChainPart {
  readonly guest: number
  readonly length: number
}

/** One request: what the driver wrote, and room for the answer. */
export interface Chain {
  readonly head: number
  readonly readable: readonly ChainPart[]
  readonly writable: readonly ChainPart[]
}

/** Addresses as the monitor has them. */
export interface VringAddresses {
  readonly descriptors: number
  readonly available: number
  readonly used: number
}

/** One queue. It is served while it has memory, addresses, a kick and is enabled. */
export class Vring {
  size = 0
  addresses: VringAddresses | undefined
  isEnabled = false
  hasEventIndex = false
  /** Counts the times that the queue was stopped. */
  epoch = 0
  #memory: GuestMemory | undefined
  #descriptors: DataView | undefined
  #available = new Uint16Array(0)
  #used = new Uint16Array(0)
  #nextAvailable = 0
  #nextUsed = 0
  /** Requests that were taken and not given back. */
  #underWay = 0
  #kick: number | undefined
  #call: number | undefined
  #poll: PollHandle | undefined

  /** Position in the available ring, modulo 2^16; both sides begin there. */
  get base(): number {
    return this.#nextAvailable
  }
  set base(position: number) {
    this.#nextAvailable = position & 0xffff
  }

  /** Takes the rings from this memory; undefined lets go of them. Throws KernelError 'EFAULT', also for rings at addresses that no processor reads them from. */
  attach(memory: GuestMemory | undefined): void {
    this.#memory = undefined
    this.#descriptors = undefined
    if (memory === undefined || this.addresses === undefined || this.size === 0) return
    const { descriptors, available, used } = this.addresses
    const view = (user: number, align: number, bytes: number): ArrayBuffer => {
      const address = memory.ofMonitor(user, bytes)
      if (address % align !== 0)
        throw new KernelError('vhost', EFAULT, `a ring at 0x${user.toString(16)} begins at no multiple of ${align}`)
      return viewMemory(address, bytes)
    }
    this.#available = new Uint16Array(view(available, AVAIL.align, 2 * (this.size + 3)))
    this.#used = new Uint16Array(view(used, USED.align, 2 * (4 * this.size + 3)))
    this.#descriptors = new DataView(view(descriptors, DESCRIPTOR.size, DESCRIPTOR.size * this.size))
    this.#nextUsed = Atomics.load(this.#used, USED.index)
    this.#memory = memory
  }

  /** Owns the descriptor. `onKick` is called when the driver has put something in. */
  setKick(fd: number, onKick: () => void): void {
    this.#closeKick()
    this.#kick = fd
    const count = Buffer.alloc(8)
    this.#poll = watch(fd, { readable: true }, () => {
      try {
        readSync(fd, count)
      } catch {
        return // somebody else was faster, or the monitor is gone, which its socket tells
      }
      onKick()
    })
    setImmediate(onKick) // what came before
  }

  /** Owns the descriptor; undefined: the driver wants no interrupts. */
  setCall(fd: number | undefined): void {
    if (this.#call !== undefined) closeSync(this.#call)
    this.#call = fd
  }

  get isReady(): boolean {
    return this.isEnabled && this.#descriptors !== undefined && this.#kick !== undefined
  }

  /** The next request; undefined when there is none, and then the driver tells of new ones. Throws KernelError 'EPROTO' for a queue that no driver makes. */
  pop(): Chain | undefined {
    for (let hasAsked = false; ; hasAsked = true) {
      const waiting = (Atomics.load(this.#available, AVAIL.index) - this.#nextAvailable) & 0xffff
      if (waiting > this.size) throw broken(`${waiting} requests are in a queue of ${this.size}`)
      if (waiting > 0) break
      if (hasAsked || !this.hasEventIndex) return undefined
      // The driver kicks when it puts something in behind this; it may just have done so.
      Atomics.store(this.#used, 2 + 4 * this.size, this.#nextAvailable)
    }
    if (this.#underWay >= this.size) throw broken(`more than ${this.size} requests are under way in a queue of as many`)
    this.#underWay++
    const head = this.#available[AVAIL.ring + (this.#nextAvailable % this.size)] ?? 0
    this.#nextAvailable = (this.#nextAvailable + 1) & 0xffff
    return this.#chain(head)
  }

  /** Gives a request back, with so many bytes written; tells the driver, if it wants to know. */
  push(head: number, written: number): void {
    this.#underWay--
    if (this.#descriptors === undefined) return
    const before = this.#nextUsed
    const at = USED.ring + 4 * (before % this.size)
    this.#used[at] = head
    this.#used[at + 1] = 0
    this.#used[at + 2] = written & 0xffff
    this.#used[at + 3] = written >>> 16
    this.#nextUsed = (before + 1) & 0xffff
    Atomics.store(this.#used, USED.index, this.#nextUsed)
    if (this.#wantsCall(before)) this.#interrupt()
  }

  /** Serves no more; the position stays. What is under way belongs to nobody: the guest uses its memory for something else. */
  stop(): void {
    this.epoch++
    this.#underWay = 0
    this.#closeKick()
  }

  #closeKick(): void {
    this.#poll?.close()
    this.#poll = undefined
    if (this.#kick !== undefined) closeSync(this.#kick)
    this.#kick = undefined
  }

  close(): void {
    this.stop()
    this.setCall(undefined)
    this.attach(undefined)
  }

  #wantsCall(before: number): boolean {
    if (!this.hasEventIndex) return (Atomics.load(this.#available, AVAIL.flags) & NO_INTERRUPT) === 0
    const wanted = Atomics.load(this.#available, AVAIL.ring + this.size)
    return ((this.#nextUsed - wanted - 1) & 0xffff) < ((this.#nextUsed - before) & 0xffff)
  }

  #interrupt(): void {
    if (this.#call === undefined) return
    try {
      writeSync(this.#call, ONE)
    } catch {
      // EAGAIN: the counter is full, and so the driver will see it; else the monitor is gone, which its socket tells
    }
  }

  #chain(head: number): Chain {
    const memory = this.#memory
    if (this.#descriptors === undefined || memory === undefined) throw broken('a queue has no memory')
    const found = { head, readable: [] as ChainPart[], writable: [] as ChainPart[] }
    let table = this.#descriptors
    for (let index = head, parts = 0, isIndirect = false; ; parts++) {
      const at = index * DESCRIPTOR.size
      if (at + DESCRIPTOR.size > table.byteLength) throw broken(`a request has descriptor ${index}`)
      if (parts > MAX_PARTS) throw broken('a request has no end')
      const guest = Number(table.getBigUint64(at + DESCRIPTOR.address, true))
      const length = table.getUint32(at + DESCRIPTOR.length, true)
      const flags = table.getUint16(at + DESCRIPTOR.flags, true)
      if ((flags & FLAG.INDIRECT) !== 0) {
        if (isIndirect || length === 0 || length > MAX_PARTS * DESCRIPTOR.size)
          throw broken('an indirect table is none')
        table = indirect(memory, guest, length)
        isIndirect = true
        index = 0
        continue
      }
      if ((flags & FLAG.WRITE) !== 0) found.writable.push({ guest, length })
      else found.readable.push({ guest, length })
      if ((flags & FLAG.NEXT) === 0) return found
      index = table.getUint16(at + DESCRIPTOR.next, true)
    }
  }
}

const ONE = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])

let tables: { readonly bytes: Uint8Array; readonly address: number } | undefined

/** A copy, until the next one: the guest cannot change it while it is read. */
function indirect(memory: GuestMemory, guest: number, length: number): DataView {
  const piece = memory.ofGuest(guest, length)
  if (piece.length < length) throw broken('an indirect table is cut')
  if (tables === undefined) {
    const bytes = new Uint8Array(MAX_PARTS * DESCRIPTOR.size)
    tables = { bytes, address: libc().address(bytes) }
  }
  calls().memcpy(tables.address, piece.address, length)
  return new DataView(tables.bytes.buffer, 0, length)
}

function broken(what: string): KernelError {
  return new KernelError('vhost', EPROTO, `the virtual machine's driver is damaged or hostile: ${what}`)
}
