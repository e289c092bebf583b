import { FuseReply } from '../../fuse/reply.ts'
import { FuseRequest } from '../../fuse/request.ts'
import { answerRequest, type FuseAnswering } from '../../fuse/serve.ts'
import { REPLY, REQUEST } from '../../fuse/wire.ts'
import { libc } from '../../syscall.ts'
import { calls } from '../calls.ts'
import type { Chain, ChainPart, Vring } from './vring.ts'
import type { VhostSession } from './session.ts'

/** A request that is answered later. */
interface Pending {
  readonly ring: Vring
  readonly epoch: number
  readonly chain: Chain
}

/** As for /dev/fuse; and room that is zero behind every request. */
const REQUEST_BYTES = 128 * 1024
const SPARE_BYTES = 4096
const EIO = 5
/** Then whoever else waits on this thread gets a turn: answers that have come, the API, the other queue. */
const MOST_AT_ONCE = 64

/** What of a session is needed here. */
type Machine = Pick<VhostSession, 'rings' | 'memory'>

/** FUSE requests that lie in the queues of a virtual machine. One for the device: who is answered later is remembered here, until the session ends. */
export class FuseQueue {
  readonly #answering: FuseAnswering
  readonly #request: FuseRequest
  readonly #address: number
  readonly #reply = new FuseReply()
  readonly #pending = new Map<number, Pending>()
  #later: { readonly low: number; readonly high: number } | undefined

  constructor(answering: FuseAnswering) {
    this.#answering = answering
    this.#request = new FuseRequest(new ArrayBuffer(REQUEST_BYTES + SPARE_BYTES))
    this.#address = libc().address(this.#request.bytes)
  }

  /** To be called by the handler when it leaves the request in hand for {@link answer}. */
  later(low: number, high: number): void {
    this.#later = { low, high }
  }

  /** Answers what is in a queue, up to a limit; true: there may be more. Throws KernelError, for guests that are damaged. */
  serve(session: Machine, ring: number): boolean {
    const queue = session.rings[ring]
    if (queue === undefined) return false
    for (let served = 0; served < MOST_AT_ONCE; served++) {
      const chain = queue.pop()
      if (chain === undefined) return false
      this.#later = undefined
      const length = this.#gather(session, chain) ? answerRequest(this.#answering, this.#request, this.#reply) : 0
      const later = this.#later as { low: number; high: number } | undefined
      if (later === undefined)
        queue.push(chain.head, length === 0 ? 0 : scatter(session, chain, this.#reply.address, length))
      else this.#pending.set(key(later.low, later.high), { ring: queue, epoch: queue.epoch, chain })
    }
    return true
  }

  /** Answers a request that was left; the body stands at `message[16..16 + bodyLength)`. One whose session is over is no error. */
  answer(session: Machine, low: number, high: number, message: Buffer, bodyLength: number, errno: number): void {
    const pending = this.#pending.get(key(low, high))
    if (pending === undefined) return
    this.#pending.delete(key(low, high))
    const length = REPLY.size + (errno === 0 ? bodyLength : 0)
    message.writeUInt32LE(length, REPLY.length)
    message.writeInt32LE(-errno, REPLY.error)
    message.writeUInt32LE(low, REPLY.unique)
    message.writeUInt32LE(high, REPLY.unique + 4)
    const { ring, epoch, chain } = pending
    if (ring.epoch === epoch) ring.push(chain.head, scatter(session, chain, libc().address(message), length))
  }

  /** The session is over: nobody waits any more. */
  forgetAll(): void {
    this.#pending.clear()
  }

  /** Copies a request here, where the guest cannot change it any more. False for one that is none. */
  #gather({ memory }: Machine, { readable }: Chain): boolean {
    let length = 0
    for (const part of readable) {
      if (length + part.length > REQUEST_BYTES) return false
      copyPart(memory, part, (address, bytes) => {
        calls().memcpy(this.#address + length, address, bytes)
        length += bytes
      })
    }
    this.#request.bytes.fill(0, length, Math.min(this.#request.bytes.length, length + SPARE_BYTES))
    return length >= REQUEST.size && this.#request.bytes.readUInt32LE(REQUEST.length) === length
  }
}

/** Unique numbers count requests: they stay below 2^53. */
function key(low: number, high: number): number {
  return high * 2 ** 32 + low
}

/** Copies an answer to the guest; gives the bytes. One that has no room becomes an error. */
function scatter({ memory }: Machine, { writable }: Chain, from: number, length: number): number {
  const room = writable.reduce((sum, part) => sum + part.length, 0)
  if (room < REPLY.size) return 0
  if (room < length) return scatterError({ memory, writable }, from)
  return copyOut(memory, writable, from, length)
}

function scatterError(of: { memory: Machine['memory']; writable: readonly ChainPart[] }, from: number): number {
  const reply = Buffer.alloc(REPLY.size)
  calls().memcpy(libc().address(reply), from, REPLY.size)
  reply.writeUInt32LE(REPLY.size, REPLY.length)
  reply.writeInt32LE(-EIO, REPLY.error)
  return copyOut(of.memory, of.writable, libc().address(reply), REPLY.size)
}

function copyOut(memory: Machine['memory'], parts: readonly ChainPart[], from: number, length: number): number {
  let done = 0
  for (const { guest, length: room } of parts) {
    copyPart(memory, { guest, length: Math.min(room, length - done) }, (address, bytes) => {
      calls().memcpy(address, from + done, bytes)
      done += bytes
    })
    if (done === length) break
  }
  return done
}

/** A part may lie in several regions. */
function copyPart(
  memory: Machine['memory'],
  { guest, length }: ChainPart,
  copy: (address: number, bytes: number) => void,
): void {
  for (let done = 0; done < length; ) {
    const piece = memory?.ofGuest(guest + done, length - done)
    if (piece === undefined) return
    copy(piece.address, piece.length)
    done += piece.length
  }
}
