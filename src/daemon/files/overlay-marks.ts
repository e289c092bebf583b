/** What an upper layer says about the one below it. Source: docs/nydusd.md, "Overlays"; Linux, Documentation/filesystems/overlayfs.rst. */
import { getXattrOf, type HostStat, setXattrOf, TYPE } from '../../kernel/index.ts'

/** Marks of a directory that hides the one below it: all are understood, the first two are written. The first is that of fuse-overlayfs and of the original, the second that of the kernel. */
const OPAQUE = ['user.fuseoverlayfs.opaque', 'trusted.overlay.opaque', 'user.overlay.opaque'].map((name) =>
  Buffer.from(`${name}\0`),
)
const WRITTEN = OPAQUE.slice(0, 2)
const PRIVATE = ['trusted.overlay.', 'user.overlay.', 'user.fuseoverlayfs.', 'trusted.nydus.'].map((name) =>
  Buffer.from(name),
)
/** The number of the image's file that was copied: what it was before, it stays. */
const ORIGIN = Buffer.from('trusted.nydus.origin\0')
const value = new Uint8Array(32)

/** A deletion mark: a character device 0:0. */
export function isWhiteout(stat: HostStat): boolean {
  return stat.type === TYPE.CHARACTER && stat.rdev === 0
}

export function isOpaque(directory: number): boolean {
  return OPAQUE.some((name) => {
    const length = getXattrOf(directory, name, value)
    return length === 1 && (value[0] === 0x79 || value[0] === 0x59) // y, Y
  })
}

/** 0 or minus an errno: one of the marks must hold. */
export function markOpaque(directory: number): number {
  const results = WRITTEN.map((name) => setXattrOf(directory, name, Buffer.from('y'), 0))
  return results.includes(0) ? 0 : results[0]
}

/** Names that belong to the overlay, not to its users. */
export function isPrivate(name: Uint8Array): boolean {
  return PRIVATE.some((prefix) => Buffer.compare(name.subarray(0, prefix.length), prefix) === 0)
}

/** Remembers which file of the image this is a copy of. False where the file system has no such marks: its number changes at the next mount. */
export function markOrigin(fd: number, ino: number): boolean {
  return setXattrOf(fd, ORIGIN, Buffer.from(String(ino)), 0) === 0
}

export function originOf(fd: number): number | undefined {
  const length = getXattrOf(fd, ORIGIN, value)
  const ino = length > 0 ? Number(Buffer.from(value.subarray(0, length)).toString('latin1')) : 0
  return Number.isSafeInteger(ino) && ino > 0 && ino < 2 ** 48 ? ino : undefined
}
