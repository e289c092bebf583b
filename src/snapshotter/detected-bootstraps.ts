import { existsSync } from 'node:fs'
import { bootstrapPath } from './daemons/bootstrap.ts'
import { TurnsByKey } from './daemons/turns.ts'
import { SnapshotterError } from './errors.ts'
import type { SnapshotterParts } from './parts.ts'
import { type ContentRoute, referenceOf } from './route.ts'
import type { Snapshot } from './snapshot.ts'

interface DetectedLayer {
  readonly kind: ContentRoute['kind']
  readonly layer: Snapshot
}

/** Bootstraps of images whose Nydus form was found elsewhere: they are fetched when something is to be shown. */
export class DetectedBootstraps {
  readonly #parts: Pick<SnapshotterParts, 'store' | 'detector'>
  readonly #fetching = new TurnsByKey()

  constructor(parts: Pick<SnapshotterParts, 'store' | 'detector'>) {
    this.#parts = parts
  }

  /** The layer's bootstrap is there when this resolves; it is fetched once. False: its image, of which that was not known, has none. Throws SnapshotterError, or the reason of the signal. */
  async ready(of: DetectedLayer, signal: AbortSignal): Promise<boolean> {
    return await this.#fetching.take(String(of.layer.id), async () => await this.#ready(of, signal))
  }

  async #ready({ kind, layer }: DetectedLayer, signal: AbortSignal): Promise<boolean> {
    const { store, detector } = this.#parts
    const directory = store.directory(layer)
    if (existsSync(bootstrapPath(directory))) return true
    if (detector === undefined)
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `the layer ${layer.key} was not unpacked, since its image has a Nydus form, and detection is switched off now; set experimental.enable_index_detect or enable_referrer_detect, or remove the image and pull it again`,
      )
    const found = await detector.find(layer.labels, signal)
    if (found === undefined) {
      if (kind === 'unknown') return false
      throw new SnapshotterError(
        'NOT_FOUND',
        `the Nydus form of ${referenceOf(layer, [])}, which was there when the image was pulled, is not found in its registry any more; remove the image and pull it again`,
      )
    }
    await detector.fetch(found, directory, signal)
    if (kind === 'unknown')
      store.update(
        layer.key,
        found.labels,
        [...found.labels.keys()].map((key) => `labels.${key}`),
      )
    return true
  }
}
