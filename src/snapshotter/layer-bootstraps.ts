/** Metadata of single layers, which lies in their snapshots, and of the image that they make. The paths are the original's. */
import { existsSync } from 'node:fs'
import { copyFile, link, mkdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { SnapshotterError } from './errors.ts'
import { runNydusImage } from './nydus-image.ts'
import type { Snapshot } from './snapshot.ts'

const LAYER = 'fs/image/layer.boot'
const IMAGE = 'fs/image/image.boot'

/** What a layer that was converted gets. */
export interface ConvertedLayer {
  readonly labels: Snapshot['labels']
  /** Puts its metadata into a snapshot's directory. */
  readonly place: (directory: string) => Promise<void>
}

/** Of an image's top layer; its directory. */
export function imageBootstrap(directory: string): string {
  return join(directory, IMAGE)
}

export async function placeLayerBootstrap(bootstrap: string, directory: string): Promise<void> {
  const at = join(directory, LAYER)
  await mkdir(dirname(at), { recursive: true })
  // It may be on another disk.
  await link(bootstrap, at).catch(async () => await copyFile(bootstrap, at))
}

export interface MergedLayers {
  /** nydus-image. */
  readonly program: string
  /** The top one first. */
  readonly layers: readonly Snapshot[]
  readonly directoryOf: (layer: Snapshot) => string
  readonly signal: AbortSignal
}

/** Makes the image's metadata of that of its layers, if it is not there; gives its path. One call an image at a time. Throws SnapshotterError 'FAILED_PRECONDITION' for a layer that has none. */
export async function mergeLayerBootstraps({ program, layers, directoryOf, signal }: MergedLayers): Promise<string> {
  const [top] = layers
  if (top === undefined) throw new SnapshotterError('INVALID_ARGUMENT', 'an image of no layers')
  const bootstrap = imageBootstrap(directoryOf(top))
  if (existsSync(bootstrap)) return bootstrap
  const parts = layers.map((layer) => join(directoryOf(layer), LAYER))
  const missing = parts.findIndex((part) => !existsSync(part))
  if (missing !== -1)
    throw new SnapshotterError(
      'FAILED_PRECONDITION',
      `the layer ${layers[missing]?.key}, below one that was converted, was not; remove the image and pull it again`,
    )
  const unfinished = `${bootstrap}.new`
  try {
    // From the lowest layer up.
    await runNydusImage(program, ['merge', '--bootstrap', unfinished, ...parts.toReversed()], signal)
    await rename(unfinished, bootstrap)
  } finally {
    await rm(unfinished, { force: true })
  }
  return bootstrap
}
