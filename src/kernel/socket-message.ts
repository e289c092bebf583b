/**
 * Unix stream sockets and the descriptors that go through them (SCM_RIGHTS), which Node cannot pass. No call here waits.
 * Sources: unix(7), cmsg(3), the layouts of struct msghdr and struct cmsghdr on 64-bit Linux.
 */
import { KernelError } from './errors.ts'
import { check, libc } from './syscall.ts'

const AF_UNIX = 1
const STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000
const SOL_SOCKET = 1
const SCM_RIGHTS = 1
const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000
const MSG_CMSG_CLOEXEC = 0x4000_0000
const ENAMETOOLONG = 36
/** `sun_path` has 108 bytes, the last one NUL. */
const MAX_PATH_BYTES = 107
/** name 0, namelen 8, iov 16, iovlen 24, control 32, controllen 40, flags 48: 56 bytes. */
const MSGHDR = { size: 56, iov: 16, iovCount: 24, control: 32, controlLength: 40 } as const
/** len 0 (u64, with the header), level 8, type 12 (i32 each): 16 bytes, then the data, padded to 8. */
const CMSGHDR = { size: 16, length: 0, level: 8, type: 12 } as const
/** The kernel's own limit of descriptors in a message is 253: none is lost. */
const MAX_DESCRIPTORS = 253

/** What a read found. `length` 0 = the other end has closed. The descriptors are the caller's. */
export interface Received {
  readonly length: number
  readonly descriptors: readonly number[]
}

/** The domain and type of such sockets, for calls that make them. */
export const UNIX_STREAM = [AF_UNIX, STREAM_NONBLOCK_CLOEXEC, 0] as const

/** A new socket, which the caller closes; it does not wait and is not inherited. Throws KernelError. */
export function unixSocket(): number {
  return check(libc().socket(...UNIX_STREAM), 'socket', 'cannot make a socket')
}

/** A struct sockaddr_un; `call` is told by the KernelError 'ENAMETOOLONG' for what is no such path. */
export function unixAddress(path: string, call: 'bind' | 'connect'): Buffer {
  const name = Buffer.from(path)
  if (name.length > MAX_PATH_BYTES || name.includes(0))
    throw new KernelError(
      call,
      ENAMETOOLONG,
      `${path} is no path of a socket, which has at most ${MAX_PATH_BYTES} bytes`,
    )
  const address = Buffer.alloc(2 + name.length + 1)
  address.writeUInt16LE(AF_UNIX, 0)
  address.set(name, 2)
  return address
}

/** A call's result, or minus its errno. To be asked right after the call. */
export function orErrno(result: number): number {
  return result < 0 ? -libc().errno() : result
}

/** Sends bytes, and descriptors with the first of them, which stay the caller's too. Gives how many bytes went, or minus an errno. */
export function sendNow(socket: number, data: Uint8Array, descriptors: readonly number[]): number {
  const message = new Message(data, descriptors.length === 0 ? undefined : controlOf(descriptors))
  const sent = orErrno(libc().sendmsg(socket, message.header, MSG_DONTWAIT | MSG_NOSIGNAL))
  message.release()
  return sent
}

/** Reads at most `into.length` bytes; a length below 0 is minus an errno. */
export function receiveNow(socket: number, into: Uint8Array): Received {
  const control = Buffer.alloc(CMSGHDR.size + 4 * MAX_DESCRIPTORS + 4)
  const message = new Message(into, control)
  const length = orErrno(libc().recvmsg(socket, message.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC))
  const end = Math.min(message.controlLength, control.length)
  message.release()
  return { length, descriptors: length < 0 ? [] : descriptorsOf(control.subarray(0, end)) }
}

function controlOf(descriptors: readonly number[]): Buffer {
  const control = Buffer.alloc(CMSGHDR.size + Math.ceil(descriptors.length / 2) * 8)
  control.writeBigUInt64LE(BigInt(CMSGHDR.size + 4 * descriptors.length), CMSGHDR.length)
  control.writeInt32LE(SOL_SOCKET, CMSGHDR.level)
  control.writeInt32LE(SCM_RIGHTS, CMSGHDR.type)
  descriptors.forEach((fd, index) => control.writeInt32LE(fd, CMSGHDR.size + 4 * index))
  return control
}

function descriptorsOf(control: Buffer): number[] {
  const found: number[] = []
  for (let at = 0; at + CMSGHDR.size <= control.length; ) {
    const length = Number(control.readBigUInt64LE(at + CMSGHDR.length))
    if (length < CMSGHDR.size || at + length > control.length) break
    const isRights =
      control.readInt32LE(at + CMSGHDR.level) === SOL_SOCKET && control.readInt32LE(at + CMSGHDR.type) === SCM_RIGHTS
    const rightsEnd = isRights ? at + length : at
    for (let item = at + CMSGHDR.size; item + 4 <= rightsEnd; item += 4) found.push(control.readInt32LE(item))
    at += (length + 7) & ~7
  }
  return found
}

/** A struct msghdr, with all that it points to. */
class Message {
  readonly header = Buffer.alloc(MSGHDR.size)
  readonly #vector = Buffer.alloc(16)
  /** Kept alive: the kernel has their addresses. */
  readonly parts: ReadonlyArray<Uint8Array | undefined>

  constructor(data: Uint8Array, control: Buffer | undefined) {
    const c = libc()
    this.parts = [data, control]
    this.#vector.writeBigUInt64LE(BigInt(c.address(data)), 0)
    this.#vector.writeBigUInt64LE(BigInt(data.length), 8)
    this.header.writeBigUInt64LE(BigInt(c.address(this.#vector)), MSGHDR.iov)
    this.header.writeBigUInt64LE(1n, MSGHDR.iovCount)
    if (control === undefined) return
    this.header.writeBigUInt64LE(BigInt(c.address(control)), MSGHDR.control)
    this.header.writeBigUInt64LE(BigInt(control.length), MSGHDR.controlLength)
  }

  /** Bytes of the control buffer; after a recvmsg, those that it filled. */
  get controlLength(): number {
    return Number(this.header.readBigUInt64LE(MSGHDR.controlLength))
  }

  /** Called when the kernel is done with the message: until then everything is referenced from here. */
  release(): void {
    this.#vector.fill(0)
    this.header.fill(0)
  }
}
