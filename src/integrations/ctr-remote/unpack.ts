import { randomBytes } from 'node:crypto'
import { ContainerdError, type MountMessage } from '../../containerd/index.ts'
import { type Descriptor, type Digest, type ImageConfig } from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'
import { chainIds } from './chain-id.ts'
import type { ContentStore } from './content-store.ts'
import { type LabelStyle, layerLabels } from './layer-labels.ts'
import type { Session } from './session.ts'

/** An image whose layers are to become snapshots. */
export interface UnpackRequest {
  readonly snapshotter: string
  readonly reference: string
  readonly manifest: Digest
  readonly layers: readonly Descriptor[]
  readonly config: ImageConfig
  readonly configDigest: Digest
  readonly style: LabelStyle
  readonly skipsVerification: boolean
  /** Puts a layer into the content store. */
  fetch(layer: Descriptor, signal: AbortSignal): Promise<void>
}

/** As many times as containerd's own clients ask again. */
const TRIES = 3
/** Layers on their way at once, as in containerd's clients. */
const DOWNLOADS = 3

/**
 * Makes a snapshot of each layer, the lowest first. A layer whose snapshot is there, or whose snapshotter answers that it will have the content by itself ("already exists"), is neither fetched
 * nor unpacked; from the first other one on, layers are fetched ahead. Afterwards the config refers to the topmost snapshot. Throws 'BAD_IMAGE', ContainerdError, what `fetch` throws, or the signal's reason.
 */
export async function unpack(session: Session, content: ContentStore, request: UnpackRequest): Promise<void> {
  const { layers, config, snapshotter, configDigest } = request
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== layers.length)
    throw new IntegrationError(
      'BAD_IMAGE',
      `number of layers and diffIDs don't match: ${layers.length} != ${diffIds.length}; the image was put together wrongly`,
    )
  const chain = chainIds(diffIds)
  await using downloads = new Downloads(request, session.signal)
  for (const [index, layer] of layers.entries()) {
    const [diffId, chainId] = [diffIds[index], chain[index]]
    const parent = index === 0 ? '' : (chain[index - 1] ?? '')
    if (diffId !== undefined && chainId !== undefined)
      await new LayerUnpacking({ session, content, request, downloads, index, layer, diffId, chainId, parent }).run()
  }
  const top = chain.at(-1)
  if (top !== undefined) await content.label(configDigest, { [`containerd.io/gc.ref.snapshot.${snapshotter}`]: top })
}

/** Layers that are fetched ahead of their use. */
class Downloads implements AsyncDisposable {
  readonly #request: UnpackRequest
  readonly #stop = new AbortController()
  readonly #signal: AbortSignal
  readonly #running = new Map<number, Promise<void>>()
  #next: number | undefined

  constructor(request: UnpackRequest, signal: AbortSignal) {
    this.#request = request
    this.#signal = AbortSignal.any([signal, this.#stop.signal])
  }

  async layer(index: number): Promise<void> {
    this.#next ??= index
    while (this.#next < index + DOWNLOADS) {
      const layer = this.#request.layers[this.#next]
      if (layer === undefined) break
      const download = this.#request.fetch(layer, this.#signal)
      download.catch(() => undefined) // told when its turn comes
      this.#running.set(this.#next, download)
      this.#next += 1
    }
    await this.#running.get(index)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await Promise.allSettled(this.#running.values())
  }
}

interface LayerParts {
  readonly session: Session
  readonly content: ContentStore
  readonly request: UnpackRequest
  readonly downloads: Downloads
  readonly index: number
  readonly layer: Descriptor
  readonly diffId: Digest
  readonly chainId: Digest
  /** Chain id of the layers below; '' for the lowest. */
  readonly parent: string
}

class LayerUnpacking {
  readonly #parts: LayerParts
  readonly #labels: Record<string, string>

  constructor(parts: LayerParts) {
    const { request, index, chainId } = parts
    this.#parts = parts
    this.#labels = layerLabels({ ...request, index, chainId })
  }

  async run(): Promise<void> {
    if (await this.#exists(this.#parts.chainId)) return
    const prepared = await this.#prepare()
    if (prepared === undefined) return
    try {
      await this.#fill(prepared.mounts)
      await this.#commit(prepared.key)
    } catch (error) {
      await this.#remove(prepared.key)
      throw error
    }
    await this.#parts.content.label(this.#parts.layer.digest, { 'containerd.io/uncompressed': this.#parts.diffId })
  }

  /** Undefined when the layer needs no unpacking. */
  async #prepare(): Promise<{ readonly key: string; readonly mounts: MountMessage[] } | undefined> {
    const { session, request, parent } = this.#parts
    for (let tries = 1; ; tries += 1) {
      const key = `extract-${process.hrtime.bigint() % 1_000_000_000n}-${randomBytes(3).toString('base64url')} ${this.#parts.chainId}`
      try {
        const { mounts } = await session.snapshots.prepare(
          { snapshotter: request.snapshotter, key, parent, labels: this.#labels },
          session.endless(),
        )
        return { key, mounts }
      } catch (error) {
        if (!(error instanceof ContainerdError) || error.code !== 'ALREADY_EXISTS') throw this.#failed('prepare', error)
        if (await this.#exists(this.#parts.chainId)) return undefined
        if (tries === TRIES) throw this.#failed('prepare', error)
      }
    }
  }

  async #fill(mounts: MountMessage[]): Promise<void> {
    const { session, downloads, index } = this.#parts
    await downloads.layer(index)
    const { mediaType, digest, size, annotations = {} } = this.#parts.layer
    const diff = { mediaType, digest, size: BigInt(size), annotations }
    let applied: string | undefined
    try {
      applied = (await session.diff.apply({ diff, mounts }, session.endless())).applied?.digest
    } catch (error) {
      throw this.#failed('extract', error)
    }
    if (applied === this.#parts.diffId) return
    throw new IntegrationError(
      'BAD_IMAGE',
      `wrong diff id calculated on extraction "${this.#parts.diffId}": layer ${digest} unpacks to ${applied}; the image was put together wrongly`,
    )
  }

  async #commit(key: string): Promise<void> {
    const { session, request } = this.#parts
    const wanted = { snapshotter: request.snapshotter, name: this.#parts.chainId, key, labels: this.#labels }
    try {
      await session.snapshots.commit(wanted, session.endless())
    } catch (error) {
      if (!(error instanceof ContainerdError) || error.code !== 'ALREADY_EXISTS') throw this.#failed('commit', error)
      // Another client was faster.
      await this.#remove(key)
    }
  }

  async #remove(key: string): Promise<void> {
    const { session, request } = this.#parts
    try {
      await session.snapshots.remove({ snapshotter: request.snapshotter, key }, session.last)
    } catch (error) {
      // It goes with the lease then; what ended the work is what is told.
      if (!(error instanceof ContainerdError)) throw error
    }
  }

  async #exists(name: string): Promise<boolean> {
    const { session, request } = this.#parts
    try {
      await session.snapshots.stat({ snapshotter: request.snapshotter, key: name }, session.soon)
      return true
    } catch (error) {
      if (error instanceof ContainerdError && error.code === 'NOT_FOUND') return false
      throw this.#failed('stat', error)
    }
  }

  #failed(step: 'stat' | 'prepare' | 'extract' | 'commit', error: unknown): unknown {
    if (!(error instanceof ContainerdError) || this.#parts.session.signal.aborted) return error
    const { request, index } = this.#parts
    return new IntegrationError(
      'FAILED',
      `failed to ${step} layer ${index + 1} of ${request.layers.length} (${this.#parts.layer.digest}) on snapshotter ${request.snapshotter}: ${error.message}`,
      { cause: error },
    )
  }
}
