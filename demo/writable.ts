import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { mountOverlay, mountTmpfs, unmount } from '../src/kernel/index.ts'
import type { Undo } from './undo.ts'

/** Enough for what a start writes; memory is taken only as it is written. */
const WRITABLE_BYTES = 1 << 30

/**
 * An overlay over `lower` (topmost first) whose writable layer is a tmpfs: an overlay cannot write into another one, which a container's disk often is.
 * Gives the merged root.
 */
export async function mountWritable(lower: readonly string[], directory: string, undo: Undo): Promise<string> {
  await mkdir(directory, { recursive: true })
  await mountTmpfs(directory, WRITABLE_BYTES)
  undo.add('the writable layer', () => unmount(directory, true))
  const [root, upper, work] = ['root', 'upper', 'work'].map((name) => join(directory, name)) as [string, string, string]
  for (const folder of [root, upper, work]) await mkdir(folder, { mode: 0o755 })
  await mountOverlay(root, { lower, upper, work })
  undo.add('the root of the container', () => unmount(root, true))
  return root
}
