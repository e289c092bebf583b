import { mkdirSync, rmSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TurnsByKey } from '../daemons/turns.ts'
import { StargzProbe, type VisitParts } from '../detect/index.ts'
import { SnapshotterError } from '../errors.ts'
import { STARGZ } from '../labels.ts'
import { type ConvertedLayer, mergeLayerBootstraps, placeLayerBootstrap } from '../layer-bootstraps.ts'
import { runNydusImage } from '../nydus-image.ts'
import type { Labels, Snapshot } from '../snapshot.ts'

export interface StargzParts extends VisitParts {
  readonly root: string
  /** nydus-image. */
  readonly program: string
  readonly log: { debug(line: string): void; warn(line: string): void }
}

/** Images of eStargz layers: metadata is made of each layer's table of contents, and nydusd reads the chunks of the layers, which stay as they are in their registry. */
export class Stargz {
  readonly #parts: StargzParts
  readonly #probe: StargzProbe
  /** For what is being converted. */
  readonly #directory: string
  readonly #turns = new TurnsByKey()
  readonly #lifetime = new AbortController()

  constructor(parts: StargzParts) {
    this.#parts = parts
    this.#probe = new StargzProbe(parts)
    this.#directory = join(parts.root, 'stargz')
    // What a process that died left.
    rmSync(this.#directory, { recursive: true, force: true })
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
  }

  /** The layer, when it is one of eStargz; undefined: it is none. Throws SnapshotterError. */
  async take(labels: Labels, signal: AbortSignal): Promise<ConvertedLayer | undefined> {
    const layer = await this.#probe.find(labels, signal)
    if (layer === undefined) return undefined
    const folder = await mkdtemp(join(this.#directory, 'layer-'))
    const [toc, bootstrap] = [join(folder, 'stargz.index.json'), join(folder, 'layer.boot')]
    try {
      await writeFile(toc, layer.toc)
      const of = ['--blob-id', layer.blobId, '--blob-data-size', layer.blobSize.toString(16)]
      await runNydusImage(this.#parts.program, ['create', '-t', 'estargztoc-ref', ...of, '-B', bootstrap, toc], signal)
    } catch (error) {
      await rm(folder, { recursive: true, force: true })
      throw error
    }
    return {
      labels: new Map([[STARGZ, 'true']]),
      place: async (directory) => {
        try {
          await placeLayerBootstrap(bootstrap, directory)
        } finally {
          await rm(folder, { recursive: true, force: true })
        }
      },
    }
  }

  /** Makes the image of these layers, the top one first, if it is not there. Throws SnapshotterError. */
  async merge(layers: readonly Snapshot[], directoryOf: (layer: Snapshot) => string): Promise<void> {
    const { program } = this.#parts
    const { signal } = this.#lifetime
    await this.#turns.take(String(layers[0]?.id), () => mergeLayerBootstraps({ program, layers, directoryOf, signal }))
  }

  stop(): void {
    this.#lifetime.abort(new SnapshotterError('UNAVAILABLE', 'the snapshotter stops'))
  }
}
