/**
 * Descriptors over Unix stream sockets (SCM_RIGHTS), which Node cannot pass. No call here waits in the kernel: what is not possible yet is tried again until a deadline.
 * Sources: unix(7), cmsg(3), the layouts of struct msghdr and struct cmsghdr on 64-bit Linux.
 */
import { closeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { KernelError } from './errors.ts'
import { check, libc } from './syscall.ts'

const AF_UNIX = 1
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x4000_0000
const EINTR = 4
const EAGAIN = 11
const E2BIG = 7
const ETIMEDOUT = 110
/** `sun_path`: 108 bytes, the last one NUL. */
const MAX_PATH_BYTES = 107

/** name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48: 56 bytes. */
const MSGHDR = { size: 56, iov: 16, iovCount: 24, control: 32, controlLength: 40 } as const
/** len 0 (u64, with the header), level 8, type 12 (i32 each), data 16; each is padded to 8. */
const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const
const MAX_DESCRIPTORS = 16
const PART_BYTES = 256 << 10
const LONGEST_PAUSE_MS = 20

/** Connects to a Unix stream socket; gives its descriptor, which the caller closes. Throws KernelError, 'ETIMEDOUT' when nobody accepts. */
export async function connectUnix(path: string, timeoutMs: number): Promise<number> {
  const name = Buffer.from(path)
  if (name.length > MAX_PATH_BYTES || name.includes(0))
    throw new KernelError('connect', 36, `${path} is no path of a socket, which has at most ${MAX_PATH_BYTES} bytes`)
  const address = Buffer.alloc(2 + name.length + 1)
  address.writeUInt16LE(AF_UNIX, 0)
  address.set(name, 2)
  const socket = check(libc().socket(AF_UNIX, SOCK_STREAM_NONBLOCK_CLOEXEC, 0), 'socket', 'cannot make a socket')
  try {
    await again('connect', `cannot connect to ${path}`, timeoutMs, () =>
      libc().connect(socket, address, address.length),
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
  const control = Buffer.alloc(CMSGHDR.size + 8)
  control.writeBigUInt64LE(BigInt(CMSGHDR.size + 4), CMSGHDR.length)
  control.writeInt32LE(SOL_SOCKET, CMSGHDR.level)
  control.writeInt32LE(SCM_RIGHTS, CMSGHDR.type)
  control.writeInt32LE(fd, CMSGHDR.size)
  for (let done = 0; done < data.length; ) {
    const message = new Message(data.subarray(done), done === 0 ? control : undefined)
    done += await again('sendmsg', `cannot send descriptor ${fd}`, deadline - performance.now(), () =>
      libc().sendmsg(socket, message.header, MSG_DONTWAIT | MSG_NOSIGNAL),
    )
    message.release()
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
  try {
    for (;;) {
      const message = new Message(Buffer.alloc(PART_BYTES), Buffer.alloc(CMSGHDR.size + 4 * MAX_DESCRIPTORS))
      const got = await again('recvmsg', 'the other end says nothing', deadline - performance.now(), () =>
        libc().recvmsg(socket, message.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC),
      )
      descriptors.push(...message.descriptors())
      if (got === 0) return { data: Buffer.concat(parts), descriptors }
      length += got
      if (length > maxBytes) throw new KernelError('recvmsg', E2BIG, `the other end sends more than ${maxBytes} bytes`)
      parts.push(Buffer.from(message.data.subarray(0, got)))
    }
  } catch (error) {
    for (const fd of descriptors) closeSync(fd)
    throw error
  }
}

/** A struct msghdr, with all that it points to. */
class Message {
  readonly header = Buffer.alloc(MSGHDR.size)
  readonly data: Uint8Array
  readonly #vector = Buffer.alloc(16)
  readonly #control: Buffer | undefined

  constructor(data: Uint8Array, control: Buffer | undefined) {
    const c = libc()
    this.data = data
    this.#control = control
    this.#vector.writeBigUInt64LE(BigInt(c.address(data)), 0)
    this.#vector.writeBigUInt64LE(BigInt(data.length), 8)
    this.header.writeBigUInt64LE(BigInt(c.address(this.#vector)), MSGHDR.iov)
    this.header.writeBigUInt64LE(1n, MSGHDR.iovCount)
    if (control === undefined) return
    this.header.writeBigUInt64LE(BigInt(c.address(control)), MSGHDR.control)
    this.header.writeBigUInt64LE(BigInt(control.length), MSGHDR.controlLength)
  }

  /** What a recvmsg left in the control buffer. */
  descriptors(): number[] {
    const control = this.#control
    if (control === undefined) return []
    const end = Math.min(Number(this.header.readBigUInt64LE(MSGHDR.controlLength)), control.length)
    const found: number[] = []
    for (let at = 0; at + CMSGHDR.size <= end; ) {
      const length = Number(control.readBigUInt64LE(at + CMSGHDR.length))
      if (length < CMSGHDR.size || at + length > end) break
      const isRights =
        control.readInt32LE(at + CMSGHDR.level) === SOL_SOCKET && control.readInt32LE(at + CMSGHDR.type) === SCM_RIGHTS
      const count = isRights ? Math.floor((length - CMSGHDR.size) / 4) : 0
      for (let index = 0; index < count; index++) found.push(control.readInt32LE(at + CMSGHDR.size + 4 * index))
      at += (length + 7) & ~7
    }
    return found
  }

  /** Called after the kernel is done with the message: until then everything must be referenced from here. */
  release(): void {
    this.#vector.fill(0)
    this.header.fill(0)
  }
}

/** Tries a call until it can be done. */
async function again(call: string, what: string, timeoutMs: number, attempt: () => number): Promise<number> {
  const deadline = performance.now() + timeoutMs
  for (let pauseMs = 1; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const result = attempt()
    if (result >= 0) return result
    const errno = libc().errno()
    if (errno === EINTR) continue
    if (errno !== EAGAIN) throw new KernelError(call, errno, what)
    if (performance.now() > deadline) throw new KernelError(call, ETIMEDOUT, what)
    await sleep(pauseMs)
  }
}
