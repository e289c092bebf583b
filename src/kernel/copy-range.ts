import { KernelError } from './errors.ts'
import { libc } from './syscall.ts'

/**
 * Copies bytes from one file to another in the kernel; file systems that can share them (XFS, btrfs) do. Gives the bytes copied, fewer only where the source ends.
 * Throws KernelError, 'EXDEV' or 'EOPNOTSUPP' where the kernel cannot.
 */
export function copyFileRange(from: number, fromOffset: number, to: number, toOffset: number, length: number): number {
  const c = libc()
  const [at, into] = [Buffer.alloc(8), Buffer.alloc(8)] // moved on by the kernel
  at.writeBigInt64LE(BigInt(fromOffset))
  into.writeBigInt64LE(BigInt(toOffset))
  let done = 0
  while (done < length) {
    const copied = c.copy_file_range(from, at, to, into, length - done, 0)
    if (copied === 0) break
    if (copied < 0) throw new KernelError('copy_file_range', c.errno(), `cannot copy from descriptor ${from} to ${to}`)
    done += copied
  }
  return done
}
