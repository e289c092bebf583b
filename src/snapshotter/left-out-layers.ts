import type { Cleanup } from './cleanup.ts'
import { SnapshotterError } from './errors.ts'
import { NYDUS_INDEX_ALTERNATIVE, SNAPSHOT_REF } from './labels.ts'
import { filesOf } from './mounts.ts'
import type { SnapshotterParts } from './parts.ts'
import { type LayerProbe, routeLayer, type RouteOptions } from './route.ts'
import type { Labels, Snapshot } from './snapshot.ts'
import { measureUsage } from './store/index.ts'

/** What a way gives that has a layer's content: labels for the layer, and files, if it keeps any there. */
interface Taken {
  readonly labels: Labels
  readonly place?: ((directory: string) => Promise<void>) | undefined
}

/** A layer as the client prepares it. */
export interface OfferedLayer {
  readonly key: string
  readonly parent: string
  readonly labels: Labels
}

/** A layer to be left out: how it is committed. */
interface Skipped extends OfferedLayer {
  /** Its chain id, and the name that it gets. */
  readonly target: string
  readonly name: string
  readonly committed: Labels
  readonly place: Taken['place']
}

/** Layers whose content comes otherwise than by unpacking them: the snapshotter commits them, and tells clients that they are there. */
export class LeftOutLayers {
  readonly #parts: SnapshotterParts
  readonly #options: RouteOptions
  readonly #cleanup: Cleanup
  readonly #lifetime: AbortSignal

  constructor(parts: SnapshotterParts, options: RouteOptions, cleanup: Cleanup, lifetime: AbortSignal) {
    this.#parts = parts
    this.#options = options
    this.#cleanup = cleanup
    this.#lifetime = lifetime
  }

  /** Resolves when the client has to unpack the layer. Throws SnapshotterError 'ALREADY_EXISTS' when it is there. `chain` is what it stands on. */
  async offer(layer: OfferedLayer, chain: readonly Snapshot[], signal: AbortSignal): Promise<void> {
    const { labels } = layer
    const route = routeLayer(labels, chain, this.#options)
    if (route.kind === 'native') return
    const target = labels.get(SNAPSHOT_REF) ?? ''
    // Another namespace had it.
    const name = this.#nameFor(target, chain[0])
    if (name === undefined) throw skipped(target)
    if (route.kind === 'skip')
      return await this.#skip({ ...layer, target, name, committed: route.labels, place: undefined })
    const taken = await this.#probe(route.probes, labels, signal)
    if (taken === undefined) return
    const committed = new Map([...labels, ...taken.labels])
    await this.#skip({ ...layer, target, name, committed, place: taken.place })
  }

  /** Commits a layer whose content comes otherwise, and tells so. */
  async #skip(of: Skipped): Promise<never> {
    const { store } = this.#parts
    const snapshot = store.create('active', of.key, of.parent, of.labels)
    try {
      await of.place?.(store.directory(snapshot))
      const usage = await measureUsage(filesOf(store.directory(snapshot)), this.#lifetime)
      store.commit(of.name, of.key, of.committed, usage)
    } catch (error) {
      await this.#cleanup.undo(snapshot, this.#lifetime)
      // Another client was quicker.
      const isTaken = error instanceof SnapshotterError && error.code === 'ALREADY_EXISTS'
      if (!isTaken || store.find(of.name)?.kind !== 'committed') throw error
    }
    throw skipped(of.target)
  }

  /**
   * The name to commit a layer by: its chain id, which all namespaces share. Undefined: it is there. Clients look it up by its label and its parent, so where the parent is another one than that of the snapshot that has
   * the name, because a namespace unpacked the layers below itself, a second one is needed.
   */
  #nameFor(target: string, parent: Snapshot | undefined): string | undefined {
    const existing = this.#parts.store.find(target)
    if (existing === undefined) return target
    if (existing.parent === (parent?.key ?? '')) return undefined
    const name = `${target}@${parent?.id ?? 0}`
    return this.#parts.store.find(name) === undefined ? name : undefined
  }

  /** What the first of the ways gives that has the layer's content; undefined: none has. A way that fails is none. */
  async #probe(probes: readonly LayerProbe[], labels: Labels, signal: AbortSignal): Promise<Taken | undefined> {
    const target = labels.get(SNAPSHOT_REF) ?? ''
    for (const probe of probes)
      try {
        const taken = await this.#try(probe, labels, signal)
        if (taken !== undefined) return taken
      } catch (error) {
        signal.throwIfAborted()
        this.#parts.log.warn(`${target} is unpacked, as it could not be taken otherwise (${probe}): ${String(error)}`)
      }
    return undefined
  }

  async #try(probe: LayerProbe, labels: Labels, signal: AbortSignal): Promise<Taken | undefined> {
    const { detector, stargz, tarfs, log } = this.#parts
    switch (probe) {
      case 'detect': {
        const found = await detector?.find(labels, signal)
        if (found === undefined) return undefined
        log.info(`${labels.get(SNAPSHOT_REF) ?? ''} is left out: its image has a Nydus form (${found.kind})`)
        // The mark that the original reads.
        const mark = found.kind === 'index' ? ([[NYDUS_INDEX_ALTERNATIVE, 'true']] as const) : []
        return { labels: new Map([...found.labels, ...mark]) }
      }
      case 'tarfs':
        return await tarfs?.take(labels, signal)
      case 'stargz':
        return await stargz?.take(labels, signal)
      default:
        return probe satisfies never
    }
  }
}

/** What clients take for "leave this layer out". They know it by its code. */
function skipped(target: string): SnapshotterError {
  return new SnapshotterError('ALREADY_EXISTS', `target snapshot ${JSON.stringify(target)}: already exists`)
}
