/** Memory that other processes share, or that calls of the kernel fill. */
import { writeSync } from 'node:fs'
import { check, libc } from '../syscall.ts'

const MFD_CLOEXEC_ALLOW_SEALING = 1 | 2
const F_ADD_SEALS = 1033
/** Neither the seals nor the size nor the bytes change any more. The older seal against writes would forbid shared mappings for reading too, before Linux 6.7. */
const SEALS = { SEAL: 0x1, SHRINK: 0x2, GROW: 0x4, FUTURE_WRITE: 0x10 } as const

/** Address of a view's first byte; the caller keeps the view alive. */
export function addressOf(of: Uint8Array): number {
  return libc().address(of)
}

/** A file in memory with these bytes, which nobody can change any more. Gives its descriptor, which the caller closes. Throws KernelError. */
export function sealedFile(name: string, bytes: Uint8Array): number {
  const fd = check(libc().memfd_create(name, MFD_CLOEXEC_ALLOW_SEALING), 'memfd_create', 'cannot make a file in memory')
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done)
  check(
    libc().fcntl(fd, F_ADD_SEALS, SEALS.SEAL | SEALS.SHRINK | SEALS.GROW | SEALS.FUTURE_WRITE),
    'fcntl',
    'cannot seal a file in memory',
  )
  return fd
}
