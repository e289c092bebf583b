import { readFileSync } from 'node:fs'

/** The number of the session behind a FUSE device, in the kernel's own form (major << 20 | minor of its mounts); undefined where the kernel does not tell, or there is none. */
export function fuseConnection(device: number): number | undefined {
  const found = /^fuse_connection:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${device}`, 'utf8'))?.[1]
  return found === undefined ? undefined : Number(found)
}
