/** File type bits of a mode, and what directories call them. */
export const MODE = {
  TYPE: 0o170000,
  SOCKET: 0o140000,
  SYMLINK: 0o120000,
  FILE: 0o100000,
  BLOCK: 0o060000,
  DIRECTORY: 0o040000,
  CHAR: 0o020000,
  FIFO: 0o010000,
} as const

/** True for `mode` of that type: `isType(mode, MODE.FILE)`. */
export function isType(mode: number, type: number): boolean {
  return (mode & MODE.TYPE) === type
}

/** DT_* of readdir for a mode. */
export function directoryType(mode: number): number {
  return (mode & MODE.TYPE) >> 12
}
