import { readFileSync } from 'node:fs'
import { libc } from './syscall.ts'

/**
 * Ends the process at once. `process.exit` would join threads, and one that sits in a read of /dev/fuse never comes: it hangs for ever, and the dying
 * thread takes one more request with it. Output must have been written synchronously before.
 */
export function exitNow(code: number): never {
  libc()._exit(code)
  throw new Error('the process goes on after its end') // _exit does not return
}

const MADV_DONTNEED = 4

/**
 * Lets go of the pages of the program's own file that this process has mapped: most were needed only to start. They stay in the page cache, and those that are
 * used again come back by themselves. Parts that were written to (relocations) are left alone. Gives the bytes that were let go, 0 where the kernel does not tell or allow.
 */
export function releaseProgramPages(): number {
  let released = 0
  try {
    for (const mapping of readFileSync('/proc/self/smaps', 'latin1').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/)) {
      const found = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \d+ +(\/.*)$/m.exec(mapping)
      if (found === null || found[3] !== process.execPath) continue
      const kib = (field: string): number =>
        Number(new RegExp(`^${field}: +(\\d+) kB`, 'm').exec(mapping)?.[1] ?? Number.NaN)
      if (kib('Anonymous') !== 0 || kib('Private_Dirty') !== 0) continue
      const [from, to] = [Number.parseInt(found[1], 16), Number.parseInt(found[2], 16)]
      if (libc().madvise(from, to - from, MADV_DONTNEED) === 0) released += kib('Rss') * 1024
    }
  } catch {
    // No smaps in this kernel or container: the pages stay.
  }
  return released
}
