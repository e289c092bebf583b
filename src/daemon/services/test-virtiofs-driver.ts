/** For tests: the driver of a virtual machine, and its monitor, as far as the device sees them. Written from docs/formats/vhost-user.md. */
import { closeSync, ftruncateSync, readSync } from 'node:fs'
import { connectStream, countEvent, eventCounter, sharedMemory, type UnixStream } from '../../kernel/vm/index.ts'

const GUEST_BASE = 0x1000_0000
const USER_BASE = 0x7f00_0000_0000
const RING = { descriptors: 0, available: 0x8000, used: 0xc000 }
const RINGS_BYTES = 0x10000
const INDIRECT_AT = 0x40000
const FLAG = { NEXT: 1, WRITE: 2, INDIRECT: 4 }

export interface DriverOptions {
  readonly indirect?: boolean
  readonly eventIndex?: boolean
  /** Two regions of memory instead of one; requests and answers may lie in both. */
  readonly regions?: 1 | 2
  readonly queueSize?: number
}

interface Ring {
  readonly at: number
  readonly kick: number
  readonly call: number
  next: number
  seen: number
}

/** One machine, with 16 MiB of memory and two queues. */
export class VirtioFsDriver implements AsyncDisposable {
  readonly stream: UnixStream
  isOver = false
  readonly #bytes: Buffer
  readonly #memoryFd: number
  readonly #size = 16 << 20
  readonly #options: Required<DriverOptions>
  readonly #answers: Buffer[] = []
  readonly #waiting: Array<(answer: Buffer) => void> = []
  readonly #rings: Ring[] = []
  #received = Buffer.alloc(0)
  #unique = 2

  constructor(path: string, options: DriverOptions = {}) {
    this.#options = { indirect: false, eventIndex: false, regions: 1, queueSize: 128, ...options }
    const memory = sharedMemory(this.#size)
    this.#bytes = Buffer.from(memory.bytes)
    this.#memoryFd = memory.fd
    this.stream = connectStream(path)
    const buffer = Buffer.alloc(4096)
    this.stream.listen({
      onReadable: () => {
        for (let got = this.#receive(buffer); got !== undefined; got = this.#receive(buffer)) {
          if (got.length === 0) {
            this.isOver = true
            this.stream.close()
            return
          }
          this.#received = Buffer.concat([this.#received, buffer.subarray(0, got.length)])
          this.#parse()
        }
      },
      onError: () => (this.isOver = true),
    })
  }

  #receive(into: Buffer): ReturnType<UnixStream['receive']> {
    try {
      return this.stream.receive(into)
    } catch {
      return { length: 0, descriptors: [] } // the device hung up without reading all
    }
  }

  /** Sends a message; `wantsAnswer` waits for one. */
  async message(
    request: number,
    payload: Buffer,
    descriptors: readonly number[] = [],
    wantsAnswer = false,
  ): Promise<Buffer> {
    const head = Buffer.alloc(12)
    head.writeUInt32LE(request, 0)
    head.writeUInt32LE(1, 4)
    head.writeUInt32LE(payload.length, 8)
    this.stream.send(Buffer.concat([head, payload]), descriptors)
    if (!wantsAnswer) return Buffer.alloc(0)
    const ready = this.#answers.shift()
    return ready ?? (await new Promise((resolve) => this.#waiting.push(resolve)))
  }

  /** What a monitor says until the driver may begin. Gives the features of the device. */
  async start(): Promise<{ readonly features: bigint; readonly protocol: bigint; readonly queues: bigint }> {
    const features = (await this.message(1, Buffer.alloc(0), [], true)).readBigUInt64LE()
    const protocol = (await this.message(15, Buffer.alloc(0), [], true)).readBigUInt64LE()
    const queues = (await this.message(17, Buffer.alloc(0), [], true)).readBigUInt64LE()
    await this.message(16, u64(protocol))
    await this.message(3, Buffer.alloc(0))
    const unwanted = (this.#options.eventIndex ? 0n : 1n << 29n) | (this.#options.indirect ? 0n : 1n << 28n)
    await this.message(2, u64(features & ~unwanted))
    await this.setMemory()
    for (let index = 0; index < 2; index++) await this.#startRing(index)
    return { features, protocol, queues }
  }

  /** `cut`: the file is cut to so many bytes before. */
  async setMemory(cut?: number): Promise<void> {
    if (cut !== undefined) ftruncateSync(this.#memoryFd, cut)
    const parts = this.#options.regions === 1 ? [this.#size] : [this.#size / 2, this.#size / 2]
    const table = Buffer.alloc(8 + 32 * parts.length)
    table.writeUInt32LE(parts.length, 0)
    let at = 0
    parts.forEach((size, index) => {
      const row = 8 + 32 * index
      for (const [offset, value] of [GUEST_BASE + at, size, USER_BASE + at, at].entries())
        table.writeBigUInt64LE(BigInt(value), row + 8 * offset)
      at += size
    })
    await this.message(
      5,
      table,
      parts.map(() => this.#memoryFd),
    )
  }

  async #startRing(index: number): Promise<void> {
    const ring = { at: index * RINGS_BYTES, kick: eventCounter(), call: eventCounter(), next: 0, seen: 0 }
    this.#rings[index] = ring
    const { queueSize } = this.#options
    await this.message(8, u32(index, queueSize))
    const addresses = Buffer.alloc(40)
    addresses.writeUInt32LE(index, 0)
    for (const [offset, at] of [RING.descriptors, RING.used, RING.available].entries())
      addresses.writeBigUInt64LE(BigInt(USER_BASE + ring.at + at), 8 + 8 * offset)
    await this.message(9, addresses)
    await this.message(10, u32(index, 0))
    await this.message(12, u64(BigInt(index)), [ring.kick])
    await this.message(13, u64(BigInt(index)), [ring.call])
    await this.message(18, u32(index, 1))
  }

  /** Puts FUSE requests into a queue all at once; gives their answers, in their order. `parts` cuts a request into descriptors. */
  async ask(requests: readonly Buffer[], room: number, parts = 2, queue = 1): Promise<Buffer[]> {
    const slots = requests.map((request, index) => this.#put(queue, request, room, parts, index))
    this.#kick(queue, requests.length)
    for (let tries = 0; tries < 2000; tries++) {
      const ring = this.#rings[queue]
      if (ring === undefined || this.isOver) throw new Error('the device has hung up')
      const used = this.#u16(ring.at + RING.used + 2)
      if (((used - ring.seen) & 0xffff) === requests.length) {
        const lengths = this.#take(ring, used)
        return slots.map(({ head, answerAt }) => this.#guestBytes(answerAt, lengths.get(head) ?? 0))
      }
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    throw new Error('the device does not answer')
  }

  /** A FUSE request: header, and a body. */
  request(opcode: number, node: bigint, body: Buffer): Buffer {
    const head = Buffer.alloc(40)
    head.writeUInt32LE(40 + body.length, 0)
    head.writeUInt32LE(opcode, 4)
    head.writeBigUInt64LE(BigInt((this.#unique += 2)), 8)
    head.writeBigUInt64LE(node, 16)
    return Buffer.concat([head, body])
  }

  /** Interrupts of a queue since the last time. */
  interrupts(queue: number): number {
    const count = Buffer.alloc(8)
    try {
      readSync(this.#rings[queue]?.call ?? -1, count)
      return Number(count.readBigUInt64LE())
    } catch {
      return 0 // EAGAIN: none
    }
  }

  /** Overwrites memory of the machine: queue `q` has its descriptors at `q * 0x10000`, its available ring 0x8000 behind them. */
  poke(at: number, bytes: Buffer): void {
    bytes.copy(this.#bytes, at)
  }

  kick(queue: number): void {
    countEvent(this.#rings[queue]?.kick ?? -1)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stream.close()
    for (const { kick, call } of this.#rings) {
      closeSync(kick)
      closeSync(call)
    }
    closeSync(this.#memoryFd)
    await Promise.resolve()
  }

  /** Request and answer lie together; the first ones where two regions meet. */
  #put(queue: number, request: Buffer, room: number, parts: number, index: number): { head: number; answerAt: number } {
    const ring = this.#rings[queue]
    if (ring === undefined) throw new Error('the queue was not started')
    const requestAt = this.#size / 2 - 32 + index * Math.ceil((request.length + room) / 64) * 64
    const answerAt = requestAt + request.length
    request.copy(this.#bytes, requestAt)
    const pieces = [...cut(requestAt, request.length, parts, 0), ...cut(answerAt, room, parts, FLAG.WRITE)]
    const { queueSize, indirect } = this.#options
    const first = indirect ? 0 : index * pieces.length
    const table = indirect ? INDIRECT_AT + index * 1024 : ring.at + RING.descriptors
    pieces.forEach(({ at, length, flags }, piece) => {
      const isLast = piece === pieces.length - 1
      this.#descriptor(table + 16 * (first + piece), at, length, flags | (isLast ? 0 : FLAG.NEXT), first + piece + 1)
    })
    const head = indirect ? index : first
    if (indirect) this.#descriptor(ring.at + RING.descriptors + 16 * head, table, 16 * pieces.length, FLAG.INDIRECT, 0)
    this.#bytes.writeUInt16LE(head, ring.at + RING.available + 4 + 2 * (ring.next % queueSize))
    ring.next++
    return { head, answerAt }
  }

  #descriptor(row: number, at: number, length: number, flags: number, next: number): void {
    this.#bytes.writeBigUInt64LE(BigInt(GUEST_BASE + at), row)
    this.#bytes.writeUInt32LE(length, row + 8)
    this.#bytes.writeUInt16LE(flags, row + 12)
    this.#bytes.writeUInt16LE(next, row + 14)
  }

  #kick(queue: number, added: number): void {
    const ring = this.#rings[queue]
    if (ring === undefined) return
    const { queueSize, eventIndex } = this.#options
    this.#bytes.writeUInt16LE((ring.seen + added - 1) & 0xffff, ring.at + RING.available + 4 + 2 * queueSize)
    this.#bytes.writeUInt16LE(ring.next & 0xffff, ring.at + RING.available + 2)
    const wanted = this.#u16(ring.at + RING.used + 4 + 8 * queueSize)
    const before = (ring.next - added) & 0xffff
    if (!eventIndex || ((ring.next - wanted - 1) & 0xffff) < ((ring.next - before) & 0xffff)) this.kick(queue)
  }

  #take(ring: Ring, used: number): Map<number, number> {
    const lengths = new Map<number, number>()
    for (; ring.seen !== used; ring.seen = (ring.seen + 1) & 0xffff) {
      const row = ring.at + RING.used + 4 + 8 * (ring.seen % this.#options.queueSize)
      lengths.set(this.#bytes.readUInt32LE(row), this.#bytes.readUInt32LE(row + 4))
    }
    return lengths
  }

  #u16(at: number): number {
    return this.#bytes.readUInt16LE(at)
  }

  #guestBytes(at: number, length: number): Buffer {
    return Buffer.from(this.#bytes.subarray(at, at + length))
  }

  #parse(): void {
    while (this.#received.length >= 12 && this.#received.length >= 12 + this.#received.readUInt32LE(8)) {
      const end = 12 + this.#received.readUInt32LE(8)
      const answer = Buffer.from(this.#received.subarray(12, end))
      this.#received = this.#received.subarray(end)
      const waiting = this.#waiting.shift()
      if (waiting === undefined) this.#answers.push(answer)
      else waiting(answer)
    }
  }
}

function cut(
  at: number,
  length: number,
  parts: number,
  flags: number,
): Array<{ at: number; length: number; flags: number }> {
  if (length === 0) return []
  const each = Math.ceil(length / parts)
  const pieces = []
  for (let done = 0; done < length; done += each)
    pieces.push({ at: at + done, length: Math.min(each, length - done), flags })
  return pieces
}

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}

function u32(one: number, two: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt32LE(one, 0)
  bytes.writeUInt32LE(two, 4)
  return bytes
}
