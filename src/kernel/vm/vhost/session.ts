/** The device's side of vhost-user: one monitor. Messages: docs/formats/vhost-user.md, "Messages". */
import { closeSync } from 'node:fs'
import { KernelError } from '../../errors.ts'
import type { UnixStream } from '../unix-stream.ts'
import { GuestMemory, type MemoryRegion } from './guest-memory.ts'
import { Vring } from './vring.ts'

const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SET_BACKEND_REQ_FD: 21,
} as const
/** request 0, flags 4, size 8 (u32 each); the payload follows. */
const HEADER = { size: 12, request: 0, flags: 4, length: 8 } as const
const VERSION_REPLY = 1 | 4
/** Queue 0-7, and a bit that says that no descriptor comes. */
const NO_DESCRIPTOR = 0x100n
const FEATURE = { INDIRECT_DESC: 1n << 28n, EVENT_IDX: 1n << 29n, PROTOCOL_FEATURES: 1n << 30n, VERSION_1: 1n << 32n }
const FEATURES = FEATURE.INDIRECT_DESC | FEATURE.EVENT_IDX | FEATURE.PROTOCOL_FEATURES | FEATURE.VERSION_1
/** MQ and BACKEND_REQ. */
const PROTOCOL_FEATURES = (1n << 0n) | (1n << 5n)
/** nregions 0 (u32), regions from 8 on: guest 0, size 8, user 16, file offset 24 (u64 each). */
const MEMORY = { head: 8, size: 32, guest: 0, bytes: 8, user: 16, offset: 24 } as const
const MAX_REGIONS = 32
const MAX_PAYLOAD = 4096
const EPROTO = 71

export interface VhostDevice {
  readonly queues: number
  /** Entries of a queue, at most. */
  readonly queueSize: number
  /** There may be something in a queue; true: there still is, call again. May throw KernelError, which ends the session. */
  readonly onKick: (queue: number) => boolean
  /** The session is over; nothing of it may be used any more. */
  readonly onEnd: (why: string) => void
}

/** A monitor that uses the device. `close` ends it. */
export class VhostSession {
  readonly rings: readonly Vring[]
  memory: GuestMemory | undefined
  readonly #stream: UnixStream
  readonly #device: VhostDevice
  readonly #head = Buffer.alloc(HEADER.size)
  #payload = Buffer.alloc(0)
  #have = 0
  #descriptors: number[] = []
  #features = 0n
  readonly #toKick = new Set<Vring>()
  #isClosed = false

  constructor(stream: UnixStream, device: VhostDevice) {
    this.#stream = stream
    this.#device = device
    this.rings = Array.from({ length: device.queues }, () => new Vring())
    stream.listen({ onReadable: () => this.#read(), onError: (error) => this.#end(error.message) })
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    for (const ring of this.rings) ring.close()
    this.#closeDescriptors()
    this.memory?.close()
    this.memory = undefined
    this.#stream.close()
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.close()
    this.#device.onEnd(why)
  }

  /** The header alone first: descriptors come with its first byte. */
  #read(): void {
    try {
      while (!this.#isClosed) {
        const isHead = this.#have < HEADER.size
        const into = isHead ? this.#head.subarray(this.#have) : this.#payload.subarray(this.#have - HEADER.size)
        const received = this.#stream.receive(into)
        if (received === undefined) return
        this.#descriptors.push(...received.descriptors)
        if (received.length === 0) return this.#end('it has hung up')
        this.#have += received.length
        this.#advance()
      }
    } catch (error) {
      this.#end(error instanceof Error ? error.message : String(error))
    }
  }

  #advance(): void {
    if (this.#have < HEADER.size) return
    const length = this.#head.readUInt32LE(HEADER.length)
    if (length > MAX_PAYLOAD) throw refused(`a message of ${length} bytes`)
    if (this.#have === HEADER.size) this.#payload = Buffer.alloc(length)
    if (this.#have < HEADER.size + length) return
    this.#have = 0
    try {
      this.#take(this.#head.readUInt32LE(HEADER.request), this.#payload)
    } finally {
      this.#closeDescriptors()
    }
  }

  #take(request: number, payload: Buffer): void {
    switch (request) {
      case REQUEST.GET_FEATURES:
        return this.#answer(request, u64(FEATURES))
      case REQUEST.GET_PROTOCOL_FEATURES:
        return this.#answer(request, u64(PROTOCOL_FEATURES))
      case REQUEST.GET_QUEUE_NUM:
        return this.#answer(request, u64(BigInt(this.rings.length)))
      case REQUEST.SET_FEATURES:
        return this.#setFeatures(readU64(payload, 0))
      case REQUEST.SET_MEM_TABLE:
        return this.#setMemory(payload)
      case REQUEST.RESET_OWNER:
        for (const ring of this.rings) ring.stop()
        return undefined
      case REQUEST.SET_OWNER:
      case REQUEST.SET_PROTOCOL_FEATURES:
      case REQUEST.SET_VRING_ERR:
      case REQUEST.SET_BACKEND_REQ_FD:
        return undefined
      default:
        return this.#takeOfRing(request, payload)
    }
  }

  #takeOfRing(request: number, payload: Buffer): void {
    const index = request === REQUEST.SET_VRING_KICK || request === REQUEST.SET_VRING_CALL ? payload[0] : undefined
    const ring = this.rings[index ?? readU32(payload, 0)]
    switch (request) {
      case REQUEST.SET_VRING_NUM:
        return this.#setSize(known(ring), readU32(payload, 4))
      case REQUEST.SET_VRING_ADDR:
        known(ring).addresses = {
          descriptors: address(payload, 8),
          used: address(payload, 16),
          available: address(payload, 24),
        }
        return known(ring).attach(this.memory)
      case REQUEST.SET_VRING_BASE:
        known(ring).base = readU32(payload, 4)
        return undefined
      case REQUEST.GET_VRING_BASE: {
        known(ring).stop()
        const answer = Buffer.from(payload.subarray(0, 8))
        answer.writeUInt32LE(known(ring).base, 4)
        return this.#answer(request, answer)
      }
      case REQUEST.SET_VRING_KICK: {
        const [fd] = this.#descriptors.splice(0, 1)
        if ((readU64(payload, 0) & NO_DESCRIPTOR) !== 0n || fd === undefined) throw refused('a queue without kicks')
        if ((this.#features & FEATURE.PROTOCOL_FEATURES) === 0n) known(ring).isEnabled = true
        return known(ring).setKick(fd, () => this.#kicked(known(ring)))
      }
      case REQUEST.SET_VRING_CALL:
        return known(ring).setCall(this.#descriptors.shift())
      case REQUEST.SET_VRING_ENABLE:
        known(ring).isEnabled = readU32(payload, 4) === 1
        return this.#kicked(known(ring))
      default:
        throw refused(`request ${request}`)
    }
  }

  #kicked(ring: Vring): void {
    if (this.#isClosed || !ring.isReady) return
    try {
      if (this.#device.onKick(this.rings.indexOf(ring))) this.#kickAgain(ring)
    } catch (error) {
      this.#end(error instanceof Error ? error.message : String(error))
    }
  }

  /** After what waits on this thread meanwhile. */
  #kickAgain(ring: Vring): void {
    if (this.#toKick.has(ring)) return
    this.#toKick.add(ring)
    setImmediate(() => {
      this.#toKick.delete(ring)
      this.#kicked(ring)
    })
  }

  #setFeatures(features: bigint): void {
    if ((features & ~FEATURES) !== 0n) throw refused(`features 0x${features.toString(16)}`)
    this.#features = features
    for (const ring of this.rings) ring.hasEventIndex = (features & FEATURE.EVENT_IDX) !== 0n
  }

  #setSize(ring: Vring, size: number): void {
    if (size === 0 || size > this.#device.queueSize || (size & (size - 1)) !== 0) throw refused(`a queue of ${size}`)
    ring.size = size
    ring.attach(this.memory)
  }

  #setMemory(payload: Buffer): void {
    const count = readU32(payload, 0)
    const descriptors = this.#descriptors
    if (count > MAX_REGIONS || count !== descriptors.length) throw refused(`${count} memory regions`)
    const regions = descriptors.map((fd, index): MemoryRegion => {
      const at = MEMORY.head + index * MEMORY.size
      return {
        guest: address(payload, at + MEMORY.guest),
        size: address(payload, at + MEMORY.bytes),
        user: address(payload, at + MEMORY.user),
        fileOffset: address(payload, at + MEMORY.offset),
        fd,
      }
    })
    const memory = new GuestMemory(regions)
    for (const ring of this.rings) ring.attach(undefined)
    this.memory?.close()
    this.memory = memory
    for (const ring of this.rings) ring.attach(memory)
  }

  #answer(request: number, payload: Buffer): void {
    const head = Buffer.alloc(HEADER.size)
    head.writeUInt32LE(request, HEADER.request)
    head.writeUInt32LE(VERSION_REPLY, HEADER.flags)
    head.writeUInt32LE(payload.length, HEADER.length)
    this.#stream.send(Buffer.concat([head, payload]))
  }

  #closeDescriptors(): void {
    for (const fd of this.#descriptors.splice(0)) closeSync(fd)
  }
}

function known(ring: Vring | undefined): Vring {
  if (ring === undefined) throw refused('a queue that is not there')
  return ring
}

function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(value)
  return bytes
}

function readU32(payload: Buffer, at: number): number {
  if (at + 4 > payload.length) throw refused('a message that is cut')
  return payload.readUInt32LE(at)
}

function readU64(payload: Buffer, at: number): bigint {
  if (at + 8 > payload.length) throw refused('a message that is cut')
  return payload.readBigUInt64LE(at)
}

/** An address or size: no machine has one that a number does not hold. */
function address(payload: Buffer, at: number): number {
  const value = Number(readU64(payload, at))
  if (value > 2 ** 52) throw refused(`address 0x${value.toString(16)}`)
  return value
}

function refused(what: string): KernelError {
  return new KernelError('vhost', EPROTO, `the monitor sends what this device does not do: ${what}`)
}
