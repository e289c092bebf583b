import { cPath, later, libc } from '../syscall.ts'
import { KernelError } from '../errors.ts'
import { sendFuse } from './send.ts'
import { ERRNO, INVAL_ENTRY, INVAL_INODE, NOTIFY, REPLY } from './wire.ts'

/** A node as the kernel knows it: the low 56 bits and the top byte of its id. */
export interface FuseNode {
  readonly node: number
  readonly top: number
}

/**
 * Makes the kernel forget a name in a directory, found or not found, and everything below it. Needed where names come and go, since answers are kept for ever.
 * A name that the kernel does not know is no error. Never call it while holding back an answer about that directory.
 */
export async function forgetEntry(fd: number, parent: FuseNode, name: Uint8Array): Promise<void> {
  const message = Buffer.alloc(REPLY.size + INVAL_ENTRY.size + name.length + 1)
  writeNode(message, REPLY.size + INVAL_ENTRY.parent, parent)
  message.writeUInt32LE(name.length, REPLY.size + INVAL_ENTRY.nameLength)
  message.set(name, REPLY.size + INVAL_ENTRY.size)
  await notify(fd, NOTIFY.INVAL_ENTRY, message)
}

/** Makes the kernel forget a directory's attributes and its kept listing. Not for files: it would wait for reads under way. */
export async function forgetListing(fd: number, directory: FuseNode): Promise<void> {
  const message = Buffer.alloc(REPLY.size + INVAL_INODE.size)
  writeNode(message, REPLY.size + INVAL_INODE.node, directory)
  await notify(fd, NOTIFY.INVAL_INODE, message)
}

/** Makes the kernel ask again for a file's attributes, nothing else: this waits for nothing, so the thread that answers may do it. */
export function forgetAttributes(fd: number, node: FuseNode): void {
  const message = Buffer.alloc(REPLY.size + INVAL_INODE.size)
  message.writeUInt32LE(message.length, REPLY.length)
  message.writeInt32LE(NOTIFY.INVAL_INODE, REPLY.error)
  writeNode(message, REPLY.size + INVAL_INODE.node, node)
  message.writeBigInt64LE(-1n, REPLY.size + INVAL_INODE.first) // before the first byte: no pages
  sendFuse(fd, libc().address(message), message.length)
}

/**
 * Makes the kernel hand out again every request that was read and not answered, with the top bit of its number set: what a dead server had in hand goes to the next one. An
 * answer to the old number is refused from then on. Throws KernelError 'EINVAL' before Linux 6.9.
 */
export async function resendRequests(fd: number): Promise<void> {
  await notify(fd, NOTIFY.RESEND, Buffer.alloc(REPLY.size))
}

/** A notification is a message with unique 0 and a positive code in the place of the error. */
async function notify(fd: number, code: number, message: Buffer): Promise<void> {
  message.writeUInt32LE(message.length, REPLY.length)
  message.writeInt32LE(code, REPLY.error)
  const c = libc()
  try {
    // on a thread of the pool: the kernel may wait for a lock
    await later(c.write, 'write', 'the kernel refused a FUSE notification', fd, c.address(message), message.length)
  } catch (error) {
    const known =
      error instanceof KernelError && [ERRNO.ENOENT, ERRNO.ENODEV, ERRNO.ENOTDIR].some((errno) => errno === error.errno)
    if (!known) throw error // ENOENT, ENOTDIR: the kernel has no such node or name; ENODEV: unmounted
  }
}

function writeNode(message: Buffer, at: number, of: FuseNode): void {
  message.writeUInt32LE(of.node % 2 ** 32, at)
  message.writeUInt32LE((Math.floor(of.node / 2 ** 32) | (of.top << 24)) >>> 0, at + 4)
}

/** Detaches a mount at once, on this thread: for the last moments of a process. Failure changes nothing any more and is not told. */
export function detachNow(at: string): void {
  const MNT_DETACH = 2
  libc().umount2(cPath(at), MNT_DETACH)
}
