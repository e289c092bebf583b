import { RafsError } from './errors.ts'

export const SLASH = 0x2f
const DOT = 0x2e

/** Longest name that Linux takes. */
export const NAME_MAX = 255

/** Bytewise order of two names, the shorter first when one starts with the other. */
export function compareNames(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length)
  for (let index = 0; index < length; index++) {
    const difference = a[index] - b[index] // both inside
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

export function isDot(name: Uint8Array): boolean {
  return name.length === 1 && name[0] === DOT
}

export function isDotDot(name: Uint8Array): boolean {
  return name.length === 2 && name[0] === DOT && name[1] === DOT
}

/** A name of a directory entry: 1 to 255 bytes without `/` and NUL. Throws 'BAD_DIRECTORY'. */
export function checkName(name: Uint8Array, ino: number): void {
  if (name.length === 0 || name.length > NAME_MAX)
    throw new RafsError(
      'BAD_DIRECTORY',
      `directory ${ino} has a name of ${name.length} bytes; the bootstrap is damaged or crafted`,
    )
  for (let index = 0; index < name.length; index++) {
    const byte = name[index]
    if (byte === SLASH || byte === 0)
      throw new RafsError(
        'BAD_DIRECTORY',
        `directory ${ino} has a name with a slash or NUL; the bootstrap is damaged or crafted`,
      )
  }
}

/** Order of a walk: a directory before what it holds, and that in bytewise order of names. Both are absolute paths without a slash at the end. */
export function comparePaths(a: Uint8Array, b: Uint8Array): number {
  if (a.length === 1 || b.length === 1) return a.length - b.length
  const length = Math.min(a.length, b.length)
  for (let index = 0; index < length; index++) {
    const [x, y] = [a[index], b[index]] // both inside
    if (x !== y) return x === SLASH ? -1 : y === SLASH ? 1 : x - y
  }
  return a.length - b.length
}
