import { writeFile } from 'node:fs/promises'
import { readMountInfo } from './mount.ts'

/**
 * Sets how far the kernel reads ahead on a mount, KiB. FUSE's session start can only lower the default of 128 KiB; the file under /sys raises it. Throws what the
 * write throws; false when nothing is mounted there.
 */
export async function setReadAhead(at: string, kib: number): Promise<boolean> {
  const entry = (await readMountInfo()).findLast((mount) => mount.at === at)
  if (entry === undefined) return false
  await writeFile(`/sys/class/bdi/${entry.device}/read_ahead_kb`, String(kib))
  return true
}
