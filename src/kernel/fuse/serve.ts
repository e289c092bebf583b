import { KernelError } from '../errors.ts'
import { libc } from '../syscall.ts'
import type { FuseControl } from './control.ts'
import { answerInit, type FuseSessionFacts, type FuseWishes } from './init.ts'
import { FuseReply } from './reply.ts'
import { FuseRequest } from './request.ts'
import { requestMemory } from './request-memory.ts'
import { sendFuse } from './send.ts'
import { ERRNO, MAX_READ_BYTES, OPCODE, PAGE } from './wire.ts'

/** What a handler returns when somebody else answers, later, with {@link answerFuse}. */
export const ANSWER_LATER = -4096

/**
 * Answers one request: writes the body into `reply` and gives its length, or minus an errno, or {@link ANSWER_LATER}. It runs on the reading thread: no await,
 * and nothing that could wait for the same mount. A throw is answered with EIO.
 */
export type FuseHandler = (request: FuseRequest, reply: FuseReply) => number

/** One serving thread. */
export interface FuseServing {
  readonly fd: number
  readonly control: FuseControl
  /** Number of this thread, below the control's count. */
  readonly worker: number
  readonly handler: FuseHandler
  readonly wishes: FuseWishes
  readonly onInit: (facts: FuseSessionFacts) => void
  /** Between two requests, after {@link FuseControl.wake}. */
  readonly onWake?: () => void
  /** FORGET and BATCH_FORGET, for file systems that count lookups. */
  readonly onForget: (request: FuseRequest) => void
  /** Told of a handler that threw, after its request was answered with EIO. */
  readonly onError: (error: unknown) => void
}

/** At least 8192 and what a WRITE needs, or the kernel refuses to hand out requests; more lets it batch FORGETs. */
const REQUEST_BYTES = 128 * 1024
const WRITE_HEAD_BYTES = 4096
/** What the kernel asks for in a session that another server began, with room for writes of a MiB; refused before it takes a request out. */
const LARGE_REQUEST_BYTES = MAX_READ_BYTES + PAGE
const WAIT_MS = 1_000

/** Reads and answers requests until the file system is unmounted (gives 'unmounted') or the control stops it ('stopped'). Blocks the thread. */
export function serveFuse(serving: FuseServing): 'unmounted' | 'stopped' {
  const { fd, control, worker } = serving
  const c = libc()
  const { maxWriteBytes } = serving.wishes
  const requestBytes = Math.max(REQUEST_BYTES, maxWriteBytes + WRITE_HEAD_BYTES)
  let request = new FuseRequest(requestMemory(requestBytes, maxWriteBytes > REQUEST_BYTES))
  let requestAddress = c.address(request.bytes)
  const reply = new FuseReply()
  control.announce(worker, c.gettid())
  try {
    while (!control.isStopping) {
      const read = c.read(fd, requestAddress, request.bytes.length)
      if (read < 0) {
        const errno = c.errno()
        if (errno === ERRNO.EINTR) {
          if (!control.isStopping) serving.onWake?.()
          continue
        }
        if (errno === ERRNO.ENOENT) continue // the request was taken back
        if (errno === ERRNO.EAGAIN) {
          waitForRequest(fd)
          continue
        }
        if (errno === ERRNO.EINVAL && request.bytes.length < LARGE_REQUEST_BYTES) {
          request = new FuseRequest(requestMemory(LARGE_REQUEST_BYTES, maxWriteBytes > REQUEST_BYTES))
          requestAddress = c.address(request.bytes)
          continue
        }
        if (errno === ERRNO.ENODEV || errno === ERRNO.ECONNABORTED) return 'unmounted'
        throw new KernelError('read', errno, 'the FUSE device gives no requests')
      }
      const length = answerRequest(serving, request, reply)
      if (length === 0) continue
      // ENOENT: the asker was killed meanwhile
      if (c.write(fd, reply.address, length) < 0 && c.errno() !== ERRNO.ENOENT) {
        if (c.errno() === ERRNO.ENODEV) return 'unmounted'
        serving.onError(
          new KernelError('write', c.errno(), `the kernel refused the answer to request ${request.opcode}`),
        )
      }
    }
    return 'stopped'
  } finally {
    control.announce(worker, 0)
  }
}

/** Somebody who shares the device does not want to wait in reads: wait here then, until there is a request or a signal. */
function waitForRequest(fd: number): void {
  const POLLIN = 1
  const polled = Buffer.alloc(8)
  polled.writeInt32LE(fd, 0)
  polled.writeInt16LE(POLLIN, 4)
  libc().poll(polled, 1, WAIT_MS)
}

/** What answers requests, however they come. */
export type FuseAnswering = Pick<FuseServing, 'handler' | 'wishes' | 'onInit' | 'onForget' | 'onError'>

/** Answers one request. Gives the length of the message, which stands at `reply.address`; 0 = none, or later. */
export function answerRequest(serving: FuseAnswering, request: FuseRequest, reply: FuseReply): number {
  switch (request.opcode) {
    case OPCODE.FORGET:
    case OPCODE.BATCH_FORGET:
      serving.onForget(request)
      return 0
    case OPCODE.INTERRUPT:
      return 0
    case OPCODE.DESTROY:
      return reply.finish(request.uniqueLow, request.uniqueHigh, 0, 0)
    case OPCODE.INIT: {
      const { length, facts } = answerInit(request, reply, serving.wishes)
      if (facts !== undefined) serving.onInit(facts)
      return length < 0
        ? reply.finish(request.uniqueLow, request.uniqueHigh, 0, -length)
        : reply.finish(request.uniqueLow, request.uniqueHigh, length, 0)
    }
    default:
      return handle(serving, request, reply)
  }
}

function handle(serving: FuseAnswering, request: FuseRequest, reply: FuseReply): number {
  let result: number
  try {
    result = serving.handler(request, reply)
  } catch (error) {
    serving.onError(error)
    result = -ERRNO.EIO
  }
  if (result === ANSWER_LATER) return 0
  return result < 0
    ? reply.finish(request.uniqueLow, request.uniqueHigh, 0, -result)
    : reply.finish(request.uniqueLow, request.uniqueHigh, result, 0)
}

/**
 * Answers, from any thread, a request that a handler left for later. The body stands at `message[16..16 + bodyLength)`; the first 16 bytes are overwritten.
 * `errno` 0 = success. An asker that is gone is no error.
 */
export function answerFuse(
  fd: number,
  uniqueLow: number,
  uniqueHigh: number,
  message: Buffer,
  bodyLength: number,
  errno: number,
): void {
  const length = 16 + (errno === 0 ? bodyLength : 0)
  message.writeUInt32LE(length, 0)
  message.writeInt32LE(-errno, 4)
  message.writeUInt32LE(uniqueLow, 8)
  message.writeUInt32LE(uniqueHigh, 12)
  sendFuse(fd, libc().address(message), length)
}
