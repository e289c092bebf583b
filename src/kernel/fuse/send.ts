import { KernelError } from '../errors.ts'
import { libc } from '../syscall.ts'
import { ERRNO } from './wire.ts'

/** Gives the kernel a message that stands at an address, from any thread. An asker or a node that is gone is no error. Throws KernelError. */
export function sendFuse(fd: number, address: number, length: number): void {
  const c = libc()
  if (c.write(fd, address, length) < 0) {
    const failed = c.errno()
    if (failed !== ERRNO.ENOENT && failed !== ERRNO.ENODEV && failed !== ERRNO.ECONNABORTED)
      throw new KernelError('write', failed, 'the kernel refused a message')
  }
}
