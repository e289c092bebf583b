/** What a directory source needs of Linux beyond Node. */
import { listXattrs, seekData as seekDataOf } from '../../kernel/index.ts'
import type { Xattr } from '../layer-tree.ts'

/** Extended attributes of a file, of a link itself, in the kernel's order. */
export function readXattrs(path: Uint8Array): readonly Xattr[] {
  return listXattrs(path)
}

/** Where the first data at or after `offset` lies; `size` when only a hole is left. File systems that know no holes answer `offset`. */
export function seekData(fd: number, offset: number, size: number): number {
  return seekDataOf(fd, offset) ?? size
}
