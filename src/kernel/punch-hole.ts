import { check, libc } from './syscall.ts'

const KEEP_SIZE = 1
const PUNCH_HOLE = 2

/** Gives a part of a file back to the file system; it reads as zeros then, and the file stays as long as it is. Throws KernelError, 'EOPNOTSUPP' where there are no holes. */
export function punchHole(fd: number, offset: number, length: number): void {
  const result = libc().fallocate(fd, KEEP_SIZE | PUNCH_HOLE, offset, length)
  check(result, 'fallocate', `cannot free ${length} bytes at ${offset} of descriptor ${fd}`)
}
