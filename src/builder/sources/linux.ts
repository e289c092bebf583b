/** What a directory source needs of Linux beyond Node. */
import {
  cName,
  HostStat,
  KernelError,
  listXattrsOfEnded,
  seekData as seekDataOf,
  statAt,
  statFd,
} from '../../kernel/index.ts'
import type { Xattr } from '../layer-tree.ts'

/** Extended attributes of a file, of a link itself, in the kernel's order; `path` ends in NUL. */
export function readXattrs(path: Uint8Array): readonly Xattr[] {
  return listXattrsOfEnded(path)
}

/** Where the first data at or after `offset` lies; `size` when only a hole is left. File systems that know no holes answer `offset`. */
export function seekData(fd: number, offset: number, size: number): number {
  return seekDataOf(fd, offset) ?? size
}

const AT_FDCWD = -100
/** Filled anew by each of the calls below. */
let stat: HostStat | undefined

/** What the kernel says of a path, of a link itself; valid until the next such call. */
export function statPath(path: Uint8Array): HostStat {
  return statEntry(AT_FDCWD, cName(path))
}

/** The same of an entry of an open directory; `name` ends in NUL. */
export function statEntry(directory: number, name: Uint8Array): HostStat {
  const into = (stat ??= new HostStat())
  return filled(into, statAt(directory, name, into))
}

/** The same of an open file. */
export function statOpen(fd: number): HostStat {
  const into = (stat ??= new HostStat())
  return filled(into, statFd(fd, into))
}

function filled(into: HostStat, result: number): HostStat {
  if (result < 0) throw new KernelError('statx', -result, 'cannot tell its attributes')
  return into
}
