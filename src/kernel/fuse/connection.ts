import { readFileSync } from 'node:fs'
import { check, libc } from '../syscall.ts'

const POLLERR = 8

/** Has the kernel ended the session behind a FUSE device, by an unmount or because somebody aborted it? The next session may have its number then. Throws KernelError. */
export function isFuseOver(device: number): boolean {
  const polled = Buffer.alloc(8) // fd (i32), events, and what was found (i16 each)
  polled.writeInt32LE(device, 0)
  check(libc().poll(polled, 1, 0), 'poll', 'cannot ask a FUSE device')
  return (polled.readInt16LE(6) & POLLERR) !== 0
}

/** The number of the session behind a FUSE device, in the kernel's own form (major << 20 | minor of its mounts); undefined where the kernel does not tell, or there is none. */
export function fuseConnection(device: number): number | undefined {
  const found = /^fuse_connection:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${device}`, 'utf8'))?.[1]
  return found === undefined ? undefined : Number(found)
}
