import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { timed } from './measure.ts'
import { OURS } from './peers.ts'
import { writeLargeFile, writeRealTree } from './tree.ts'

/** An image in folders: its bootstrap, and the backend that has its blob. */
export interface LocalImage {
  readonly bootstrap: string
  readonly backend: Readonly<Record<string, unknown>>
  readonly entries: number
}

const LARGE_BYTES = 512 * 2 ** 20

/** Builds an image of the demo image's files (`tree/`), and of one large file (`large`) when it is wanted, with our nydus-image. */
export function buildLocalImage(folder: string, extra: ReadonlyArray<'large'>): LocalImage {
  const [source, blobs] = [join(folder, 'source'), join(folder, 'blobs')]
  for (const made of [join(source, 'tree'), blobs]) mkdirSync(made, { recursive: true })
  const entries = writeRealTree(join(source, 'tree'))
  if (extra.includes('large')) writeLargeFile(join(source, 'large'), LARGE_BYTES)
  const bootstrap = join(folder, 'image.boot')
  timed(OURS.nydusImage, ['create', '--log-level', 'error', '-t', 'directory', '-D', blobs, '-B', bootstrap, source])
  rmSync(source, { recursive: true })
  return { bootstrap, entries, backend: { type: 'localfs', config: { dir: blobs } } }
}
