import { check, libc } from './syscall.ts'

const RLIMIT_NOFILE = 7

/** Raises the number of descriptors that this process may have, as far as it may; gives what it has then. A higher limit stays. Throws KernelError. */
export function raiseFileLimit(wanted: number): number {
  const limits = Buffer.alloc(16)
  check(libc().getrlimit(RLIMIT_NOFILE, limits), 'getrlimit', 'cannot ask for the limit of open files')
  const soft = Number(limits.readBigUInt64LE(0))
  const hard = Number(limits.readBigUInt64LE(8))
  if (soft >= wanted) return soft
  for (const most of [Math.max(wanted, hard), hard]) {
    limits.writeBigUInt64LE(BigInt(Math.min(wanted, most)), 0)
    limits.writeBigUInt64LE(BigInt(most), 8)
    if (libc().setrlimit(RLIMIT_NOFILE, limits) === 0) return Math.min(wanted, most)
    // EPERM: only a privileged process may raise the hard limit; up to it everybody may
  }
  return soft
}
