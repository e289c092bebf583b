/**
 * The calls of {@link hostCalls} as a file server wants them: a result of 0 or more, or minus an errno; nothing is thrown, since a missing name is an answer like another.
 * Names are single components of a path, bytes ending in NUL.
 */
import { KernelError } from '../errors.ts'
import { later, libc } from '../syscall.ts'
import { hostCalls } from './calls.ts'
import { STATS, type HostStat } from './stat.ts'

/** Flags of open(2), Linux on x86-64 and arm64 where they agree; those that differ are in {@link LINK_FLAGS}. */
export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
} as const
const isArm = process.arch === 'arm64'
/** O_DIRECTORY, O_NOFOLLOW and O_TMPFILE differ between machines. */
export const O_DIRECTORY = isArm ? 0o40000 : 0o200000
export const O_NOFOLLOW = isArm ? 0o100000 : 0o400000
export const O_TMPFILE = 0o20000000 | O_DIRECTORY

const AT_EMPTY_PATH = 0x1000
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_REMOVEDIR = 0x200
const AT_STATX_DONT_SYNC = 0x4000
const AT_FDCWD = -100
const EMPTY = new Uint8Array(1)

/** Bits of a mode that say what kind of file it is. */
export const TYPE = {
  MASK: 0o170000,
  FIFO: 0o010000,
  CHARACTER: 0o020000,
  DIRECTORY: 0o040000,
  BLOCK: 0o060000,
  FILE: 0o100000,
  LINK: 0o120000,
  SOCKET: 0o140000,
} as const

function done(result: number): number {
  return result < 0 ? -libc().errno() : result
}

/** Bytes and a NUL. */
export function cName(name: string | Uint8Array): Uint8Array {
  const bytes = typeof name === 'string' ? Buffer.from(name) : name
  const ended = Buffer.alloc(bytes.length + 1)
  ended.set(bytes)
  return ended
}

/** A path by which the kernel goes straight to the file of a descriptor. */
export function procPath(fd: number): Uint8Array {
  return Buffer.from(`/proc/self/fd/${fd}\0`, 'latin1')
}

/** A descriptor that only names the file, which may be of any kind; a link is not followed. */
export function openPath(directory: number, name: Uint8Array): number {
  return done(hostCalls().openat(directory, name, O.PATH | O_NOFOLLOW | O.CLOEXEC, 0))
}

export function openAt(directory: number, name: Uint8Array, flags: number, mode: number): number {
  return done(hostCalls().openat(directory, name, flags | O_NOFOLLOW | O.CLOEXEC, mode))
}

/** Opens the file of another descriptor. Only for regular files and directories: opening a device acts on it, and a FIFO may wait for ever. */
export function reopen(fd: number, flags: number): number {
  return done(hostCalls().openat(AT_FDCWD, procPath(fd), (flags & ~O_NOFOLLOW) | O.CLOEXEC, 0))
}

/** Attributes of a descriptor's file. `cached`: what this kernel knows, without asking a server (for a mount of our own, that would be us). */
export function statFd(fd: number, into: HostStat, cached = false): number {
  const flags = AT_EMPTY_PATH | (cached ? AT_STATX_DONT_SYNC : 0)
  return done(hostCalls().statx(fd, EMPTY, flags, STATS, into.words))
}

export function statAt(directory: number, name: Uint8Array, into: HostStat): number {
  return done(hostCalls().statx(directory, name, AT_SYMLINK_NOFOLLOW, STATS, into.words))
}

export function makeDirectory(directory: number, name: Uint8Array, mode: number): number {
  return done(hostCalls().mkdirat(directory, name, mode))
}

export function makeNodeAt(directory: number, name: Uint8Array, mode: number, device: number): number {
  return done(hostCalls().mknodat(directory, name, mode, device))
}

export function makeLink(directory: number, name: Uint8Array, target: Uint8Array): number {
  return done(hostCalls().symlinkat(target, directory, name))
}

/** Another name for a descriptor's file. */
export function linkFd(fd: number, directory: number, name: Uint8Array): number {
  return done(hostCalls().linkat(fd, EMPTY, directory, name, AT_EMPTY_PATH))
}

export function removeFile(directory: number, name: Uint8Array): number {
  return done(hostCalls().unlinkat(directory, name, 0))
}

export function removeDirectory(directory: number, name: Uint8Array): number {
  return done(hostCalls().unlinkat(directory, name, AT_REMOVEDIR))
}

export const RENAME = { NOREPLACE: 1, EXCHANGE: 2, WHITEOUT: 4 } as const

export function renameAt(from: number, name: Uint8Array, to: number, newName: Uint8Array, flags: number): number {
  return done(hostCalls().renameat2(from, name, to, newName, flags))
}

/** The target of a link that a descriptor names; its length, at most that of `into`. */
export function readLink(fd: number, into: Uint8Array): number {
  return done(hostCalls().readlinkat(fd, EMPTY, into, into.length))
}

export function changeMode(fd: number, mode: number): number {
  return done(hostCalls().chmod(procPath(fd), mode))
}

/** 0xffffffff leaves an id as it is. */
export function changeOwnerOf(fd: number, uid: number, gid: number): number {
  return done(hostCalls().fchownat(fd, EMPTY, uid, gid, AT_EMPTY_PATH))
}

/** Two `struct timespec`: access and modification. */
export function changeTimes(fd: number, times: Uint8Array): number {
  return done(hostCalls().utimensat(fd, EMPTY, times, AT_EMPTY_PATH))
}

export function truncateFd(fd: number, length: number): number {
  return done(hostCalls().ftruncate(fd, length))
}

export function allocate(fd: number, mode: number, offset: number, length: number): number {
  return done(hostCalls().fallocate(fd, mode, offset, length))
}

export function readFd(fd: number, address: number, length: number, offset: number): number {
  return done(hostCalls().pread(fd, address, length, offset))
}

export function writeFd(fd: number, from: Uint8Array, offset: number): number {
  return done(hostCalls().pwrite(fd, from, from.length, offset))
}

const RWF_APPEND = 0x10
const part = new Uint8Array(16)

/** Writes at the file's end, wherever that is by then. */
export function appendFd(fd: number, from: Uint8Array): number {
  const view = new DataView(part.buffer)
  view.setBigUint64(0, BigInt(libc().address(from)), true)
  view.setBigUint64(8, BigInt(from.length), true)
  return done(hostCalls().pwritev2(fd, part, 1, -1, RWF_APPEND))
}

const [fromAt, toAt] = [new Uint8Array(8), new Uint8Array(8)]

/** Copies between files inside the kernel; gives the bytes copied. */
export function copyRange(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
  new DataView(fromAt.buffer).setBigInt64(0, BigInt(fromOffset), true)
  new DataView(toAt.buffer).setBigInt64(0, BigInt(toOffset), true)
  return done(hostCalls().copy_file_range(from, fromAt, to, toAt, length, 0))
}

/** Moves a descriptor; for directories `offset` is a cookie of 64 bits. */
export function seekFd(fd: number, offset: number | bigint, whence: number): number {
  return done(hostCalls().lseek(fd, offset, whence))
}

export function syncFd(fd: number, dataOnly: boolean): number {
  return done(dataOnly ? hostCalls().fdatasync(fd) : hostCalls().fsync(fd))
}

/** Brings a file's data to the disk, on a thread of the pool. */
export async function syncLater(fd: number): Promise<number> {
  try {
    return await later(hostCalls().fdatasync, 'fdatasync', `cannot write descriptor ${fd} to the disk`, fd)
  } catch (error) {
    if (error instanceof KernelError) return -error.errno
    throw error
  }
}

export function closeFd(fd: number): void {
  hostCalls().close(fd)
}

/** Records of `struct linux_dirent64`; their bytes, 0 at the end. */
export function readDirectory(fd: number, into: Uint8Array): number {
  return done(hostCalls().getdents64(fd, into, into.length))
}

export function statFileSystem(fd: number, into: Uint8Array): number {
  return done(hostCalls().fstatfs(fd, into))
}

/** Extended attributes of a descriptor's file, whatever its kind. */
export function getXattrOf(fd: number, name: Uint8Array, into: Uint8Array): number {
  return done(hostCalls().getxattr(procPath(fd), name, into, into.length))
}
export function setXattrOf(fd: number, name: Uint8Array, value: Uint8Array, flags: number): number {
  return done(hostCalls().setxattr(procPath(fd), name, value, value.length, flags))
}
export function listXattrsOf(fd: number, into: Uint8Array): number {
  return done(hostCalls().listxattr(procPath(fd), into, into.length))
}
export function removeXattrOf(fd: number, name: Uint8Array): number {
  return done(hostCalls().removexattr(procPath(fd), name))
}

const HANDLE_BYTES = 128
const mountId = new Uint8Array(8)

/** A name for the file that outlives every descriptor; undefined where the file system has none. */
export function handleOf(fd: number): Uint8Array | undefined {
  const handle = new Uint8Array(8 + HANDLE_BYTES)
  new DataView(handle.buffer).setUint32(0, HANDLE_BYTES, true)
  if (hostCalls().name_to_handle_at(fd, EMPTY, handle, mountId, AT_EMPTY_PATH) < 0) return undefined
  return handle.slice(0, 8 + new DataView(handle.buffer).getUint32(0, true))
}

/** `mount`: a descriptor that was opened for reading, on the same file system. */
export function openHandle(mount: number, handle: Uint8Array): number {
  return done(hostCalls().open_by_handle_at(mount, handle, O.PATH | O_NOFOLLOW | O.CLOEXEC))
}
