import { KernelError } from './errors.ts'
import { libc } from './syscall.ts'

/** Reads `length` bytes at `offset` of a file to an address (that of a buffer which the caller keeps alive). Gives the bytes read, fewer only at the file's end. Throws KernelError. */
export function readAt(fd: number, address: number, length: number, offset: number): number {
  const c = libc()
  let done = 0
  while (done < length) {
    const got = c.pread(fd, address + done, length - done, offset + done)
    if (got === 0) break
    if (got < 0) {
      if (c.errno() === 4) continue // EINTR
      throw new KernelError('pread', c.errno(), `cannot read descriptor ${fd}`)
    }
    done += got
  }
  return done
}
