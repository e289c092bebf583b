import { accessSync, constants, readFileSync } from 'node:fs'

/** What keeps this process from mounting FUSE file systems; undefined = nothing. For messages and for skipping tests. */
export function whyNoFuse(): string | undefined {
  if (process.geteuid?.() !== 0) return 'mounting needs root'
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
  } catch {
    return '/dev/fuse is not here (modprobe fuse)'
  }
  return undefined
}

/** Does the running kernel know this file system type now (modules that are not loaded do not count)? */
export function knowsFileSystem(type: string): boolean {
  return readFileSync('/proc/filesystems', 'utf8')
    .split('\n')
    .some((line) => line.split('\t')[1] === type)
}
