import { Artifact } from './artifact.ts'
import type { BuiltLayer } from './built-layer.ts'
import { CacheOutput } from './cache-output.ts'
import type { LayerRun } from './layer-options.ts'

/** A file of that name, or one in that directory named by its digest. An existing FIFO is written to. */
export interface OutputPlace {
  readonly kind: 'file' | 'directory'
  readonly path: string
}

/** Where a layer's data goes: into a blob, or, of `cache`, into the files that nydusd's cache would hold of it, in that directory. */
export type BlobPlace = OutputPlace | { readonly kind: 'cache'; readonly path: string } | { readonly kind: 'nowhere' }

/** What becomes of a layer's data. */
export interface BlobOutput {
  write(bytes: Uint8Array): Promise<void> | void
  readonly keep: LayerRun['keep']
  readonly keepMeta: LayerRun['keepMeta']
  /** Makes it be there. Gives the blob's path; undefined when there is none. */
  publish(built: BuiltLayer, blobId: string | undefined): Promise<string | undefined>
  /** Takes back what `publish` let appear, also when it failed then. */
  retract(): Promise<void>
  /** Leaves nothing behind; does nothing after `publish`. */
  discard(): Promise<void>
}

export async function openBlobOutput(place: BlobPlace): Promise<BlobOutput> {
  if (place.kind === 'cache') return await CacheOutput.create(place.path)
  if (place.kind === 'nowhere') return NOWHERE
  const isNamed = place.kind === 'file'
  return new BlobFile(isNamed ? await Artifact.create(place.path) : await Artifact.createIn(place.path, 'blob'), place)
}

const NOWHERE: BlobOutput = {
  write: () => undefined,
  keep: undefined,
  keepMeta: undefined,
  publish: async () => undefined,
  retract: async () => undefined,
  discard: async () => undefined,
}

class BlobFile implements BlobOutput {
  readonly keep = undefined
  readonly keepMeta = undefined
  readonly #file: Artifact
  readonly #place: OutputPlace

  constructor(file: Artifact, place: OutputPlace) {
    this.#file = file
    this.#place = place
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#file.write(bytes)
  }

  /** A layer that stored nothing has no blob; but a file or pipe that was asked for by name is there, empty. */
  async publish(built: BuiltLayer, blobId: string | undefined): Promise<string | undefined> {
    if (this.#place.kind === 'file') return await this.#file.publish()
    if (built.blobSize === 0) return undefined
    return await this.#file.publish(blobId ?? built.blobId)
  }

  async retract(): Promise<void> {
    await this.#file.retract()
  }

  async discard(): Promise<void> {
    await this.#file.discard()
  }
}
