/** Descriptors to and from a supervisor, over Unix stream sockets. No call here waits in the kernel: what is not possible yet is tried again until a deadline. */
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError } from './errors.ts'
import { orErrno, receiveNow, sendNow, unixAddress, unixSocket } from './socket-message.ts'
import { libc } from './syscall.ts'

const EINTR = 4
const EAGAIN = 11
const E2BIG = 7
const ETIMEDOUT = 110
const PART_BYTES = 256 << 10
const LONGEST_PAUSE_MS = 20

/** Connects to a Unix stream socket; gives its descriptor, which the caller closes. Throws KernelError, 'ETIMEDOUT' when nobody accepts. */
export async function connectUnix(path: string, timeoutMs: number): Promise<number> {
  const address = unixAddress(path, 'connect')
  const socket = unixSocket()
  try {
    await again('connect', `cannot connect to ${path}`, timeoutMs, () =>
      orErrno(libc().connect(socket, address, address.length)),
    )
    return socket
  } catch (error) {
    closeSync(socket)
    throw error
  }
}

/** Sends a descriptor with the first bytes of `data`, then the rest. The descriptor stays ours too. Throws KernelError, 'ETIMEDOUT' when the other end does not read. */
export async function sendDescriptor(socket: number, fd: number, data: Uint8Array, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  for (let done = 0; done < data.length; ) {
    const [rest, descriptors] = [data.subarray(done), done === 0 ? [fd] : []]
    done += await again('sendmsg', `cannot send descriptor ${fd}`, deadline - performance.now(), () =>
      sendNow(socket, rest, descriptors),
    )
  }
}

/** Everything until the other end closes: its bytes and descriptors, which the caller closes. Throws KernelError, 'E2BIG' beyond `maxBytes`; then no descriptor is left. */
export async function receiveDescriptors(
  socket: number,
  maxBytes: number,
  timeoutMs: number,
): Promise<{ readonly data: Buffer; readonly descriptors: readonly number[] }> {
  const deadline = performance.now() + timeoutMs
  const parts: Buffer[] = []
  const descriptors: number[] = []
  let length = 0
  const part = Buffer.allocUnsafeSlow(PART_BYTES)
  try {
    for (;;) {
      const got = await again('recvmsg', 'the other end says nothing', deadline - performance.now(), () => {
        const received = receiveNow(socket, part)
        descriptors.push(...received.descriptors)
        return received.length
      })
      if (got === 0) return { data: Buffer.concat(parts), descriptors }
      length += got
      if (length > maxBytes) throw new KernelError('recvmsg', E2BIG, `the other end sends more than ${maxBytes} bytes`)
      parts.push(Buffer.from(part.subarray(0, got)))
    }
  } catch (error) {
    for (const fd of descriptors) closeSync(fd)
    throw error
  }
}

/** Tries what gives a result, or minus an errno, until it can be done. */
async function again(call: string, what: string, timeoutMs: number, attempt: () => number): Promise<number> {
  const deadline = performance.now() + timeoutMs
  for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const result = attempt()
    if (result >= 0) return result
    const errno = -result
    if (errno === EINTR) continue
    if (errno !== EAGAIN) throw new KernelError(call, errno, what)
    if (performance.now() > deadline) throw new KernelError(call, ETIMEDOUT, what)
    await sleep(pauseMs)
  }
}
