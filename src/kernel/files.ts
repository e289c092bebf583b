/** Calls on files that Node lacks: binary names, extended attributes, devices, times of links, locks. Paths are text or bytes. */
import { check, cPath, libc } from './syscall.ts'
import { KernelError } from './errors.ts'

type Path = string | Uint8Array

/** One extended attribute; both are bytes. */
export interface Xattr {
  readonly name: Uint8Array
  readonly value: Uint8Array
}

const LIST_MAX = 65536
/** Most answers are no longer, and the kernel takes memory of the size that it is offered for each call. */
const LIST_USUAL = 1024
/** Filled and copied from within one call; a new one for each file would cost more than the call. */
let answer: Uint8Array | undefined
const ENODATA = 61
const ERANGE = 34
const ENOTSUP = 95

/** Extended attributes of a file, of a link itself, never of its target; in the kernel's order. None where the file system has none. */
export function listXattrs(path: Path): Xattr[] {
  return listXattrsOfEnded(cPath(path))
}

/** The same of a path that ends in NUL; what lies behind that does not count. */
export function listXattrsOfEnded(path: Uint8Array): Xattr[] {
  const c = libc()
  const buffer = (answer ??= new Uint8Array(LIST_MAX))
  let size = c.llistxattr(path, buffer, LIST_USUAL)
  if (size === 0) return []
  if (size < 0 && c.errno() === ERANGE) size = c.llistxattr(path, buffer, LIST_MAX)
  if (size < 0 && c.errno() === ENOTSUP) return []
  check(size, 'listxattr', `cannot list extended attributes of ${showEnded(path)}`)
  const names: Uint8Array[] = []
  for (let from = 0; from < size; ) {
    const end = buffer.indexOf(0, from)
    names.push(buffer.slice(from, end))
    from = end + 1
  }
  return names.flatMap((name) => {
    const ended = cPath(name)
    let value = c.lgetxattr(path, ended, buffer, LIST_USUAL)
    if (value < 0 && c.errno() === ERANGE) value = c.lgetxattr(path, ended, buffer, LIST_MAX)
    if (value < 0 && c.errno() === ENODATA) return [] // removed between the two calls
    check(value, 'getxattr', `cannot read ${Buffer.from(name).toString()} of ${showEnded(path)}`)
    return [{ name, value: buffer.slice(0, value) }]
  })
}

/** Sets one extended attribute, on a link itself. */
export function setXattr(path: Path, name: Path, value: Uint8Array): void {
  check(
    libc().lsetxattr(cPath(path), cPath(name), value, value.length, 0),
    'setxattr',
    `cannot set an extended attribute of ${show(path)}`,
  )
}

/** Makes a device, FIFO or socket node; `mode` has the type bits, `device` is a dev_t. */
export function makeNode(path: Path, mode: number, device: number): void {
  check(libc().mknod(cPath(path), mode, device), 'mknod', `cannot make the node ${show(path)}`)
}

/** Owner of a file, or of a link itself. */
export function changeOwner(path: Path, uid: number, gid: number): void {
  check(libc().lchown(cPath(path), uid, gid), 'lchown', `cannot change the owner of ${show(path)}`)
}

const AT_FDCWD = -100
const AT_SYMLINK_NOFOLLOW = 0x100
const times = Buffer.alloc(32)

/** Access and modification time of a file, or of a link itself. Seconds may be negative. */
export function setTimes(path: Path, seconds: number, nanoseconds: number): void {
  for (const at of [0, 16]) {
    times.writeBigInt64LE(BigInt(seconds), at)
    times.writeBigInt64LE(BigInt(nanoseconds), at + 8)
  }
  check(
    libc().utimensat(AT_FDCWD, cPath(path), times, AT_SYMLINK_NOFOLLOW),
    'utimensat',
    `cannot set the times of ${show(path)}`,
  )
}

const SEEK_DATA = 3
const ENXIO = 6

/** Where the first byte at or after `offset` lies that is no hole of a sparse file; undefined when only a hole is left. Moves the descriptor's own position. */
export function seekData(fd: number, offset: number): number | undefined {
  const c = libc()
  const found = c.lseek(fd, offset, SEEK_DATA)
  if (found < 0 && c.errno() === ENXIO) return undefined
  return check(found, 'lseek', `cannot look for data in descriptor ${fd}`)
}

const SEEK_HOLE = 4

/** Where the first hole at or after `offset` begins; the file's end is one. Moves the descriptor's own position. */
export function seekHole(fd: number, offset: number): number {
  return check(libc().lseek(fd, offset, SEEK_HOLE), 'lseek', `cannot look for holes in descriptor ${fd}`)
}

const LOCKS = { shared: 1, exclusive: 2, unlock: 8 } as const
const LOCK_NB = 4
const EWOULDBLOCK = 11

/** An advisory lock on an open file, held until it is unlocked or the descriptor is closed; waits for others. */
export function lockFile(fd: number, how: keyof typeof LOCKS): void {
  check(libc().flock(fd, LOCKS[how]), 'flock', `cannot lock descriptor ${fd}`)
}

/** The same without waiting: false when somebody else holds it. */
export function tryLockFile(fd: number, how: 'shared' | 'exclusive' = 'exclusive'): boolean {
  const c = libc()
  if (c.flock(fd, LOCKS[how] | LOCK_NB) === 0) return true
  if (c.errno() === EWOULDBLOCK) return false
  throw new KernelError('flock', c.errno(), `cannot lock descriptor ${fd}`)
}

function showEnded(path: Uint8Array): string {
  return show(path.subarray(0, path.indexOf(0)))
}

function show(path: Path): string {
  return typeof path === 'string' ? path : Buffer.from(path).toString()
}
