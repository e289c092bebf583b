import { join } from 'node:path'
import { adopt } from './adopt.ts'
import { type DaemonImage, type DaemonParts, Nydusd } from './daemon.ts'
import { clearLeftovers, type Found } from './found.ts'
import { Watchdog } from './health/watchdog.ts'
import type { ImageRequest } from './image-request.ts'
import { inParallel } from './in-parallel.ts'
import { messageOf } from './message.ts'
import { newDaemon } from './places.ts'
import { newDaemonId } from './records.ts'
import { type DaemonMetrics, type DaemonStatus, metricsOf, statusOf } from './status.ts'
import { upgradeAll, upgradeOutdated } from './upgrade.ts'

/** So long a start waits for daemons that serve still; the others come while it goes on. */
const START_MS = 10_000

/** An image, and the daemon that serves it. */
export interface ServedImage {
  readonly image: DaemonImage
  readonly daemon: Nydusd
}

/**
 * The nydusd processes of a snapshotter: those that earlier processes left, and those that images ask for. All are watched, those that die or hang come back by the
 * configured policy, and all but those that {@link leave} ends go on without us.
 */
export class Fleet {
  readonly #parts: DaemonParts
  readonly #daemons = new Map<string, Nydusd>()
  readonly #released: ReadonlySet<string>
  #watchdog: Watchdog | undefined

  /** `found`: those of an earlier process, which {@link takeUp} looks for. */
  constructor(parts: DaemonParts, found: Pick<Found, 'daemons' | 'released'>) {
    this.#parts = parts
    this.#released = found.released
    for (const daemon of found.daemons) this.#daemons.set(daemon.id, daemon)
  }

  /** Resolves when daemons that serve are watched again; dead ones, and the shared one where it is new, come while it goes on. */
  async takeUp(): Promise<void> {
    const { settings } = this.#parts
    if (settings.daemonMode !== 'none') await this.#adoptAll()
    const { recoverPolicy, hangTimeoutMs } = settings.daemon
    const { log, events } = this.#parts
    const daemons = (): readonly Nydusd[] => this.all
    this.#watchdog = Watchdog.start({ daemons, recoverPolicy, hangTimeoutMs, log, events })
  }

  async #adoptAll(): Promise<void> {
    const { settings, log } = this.#parts
    await clearLeftovers(this.#parts, this.all)
    const adopted = inParallel(this.all, (daemon) => this.#adopt(daemon))
    if (settings.daemonMode === 'shared') {
      const shared = this.shared()
      if (shared.state === 'starting' && shared.record.ProcessID === 0)
        void shared.running().catch((error: unknown) => log.error(`the shared nydusd: ${messageOf(error)}`))
    }
    void adopted.then(() => upgradeOutdated(this.all, this.#parts))
    const late = Promise.withResolvers<void>()
    const timer = setTimeout(late.resolve, START_MS)
    await Promise.race([adopted, late.promise])
    clearTimeout(timer)
  }

  /** One whose only image was released, by a process that was killed before it had ended the daemon too, is ended. */
  async #adopt(daemon: Nydusd): Promise<void> {
    if (!this.#released.has(daemon.id)) return await daemon.turns.take(() => adopt(daemon))
    this.#parts.log.info(`nydusd ${daemon.id} has nothing to serve, and is ended`)
    await this.end(daemon)
  }

  get all(): readonly Nydusd[] {
    return [...this.#daemons.values()]
  }

  get(id: string): Nydusd | undefined {
    return this.#daemons.get(id)
  }

  /** All images, by daemon. */
  get images(): readonly ServedImage[] {
    return this.all.flatMap((daemon) => [...daemon.images.values()].map((image) => ({ image, daemon })))
  }

  find(key: string): ServedImage | undefined {
    for (const daemon of this.#daemons.values()) {
      const image = daemon.images.get(key)
      if (image !== undefined) return { image, daemon }
    }
    return undefined
  }

  /** The daemon that all images share; a new one is not started yet. */
  shared(): Nydusd {
    const there = this.all.find(({ isShared }) => isShared)
    return there ?? this.#add('shared', join(this.#parts.settings.root, 'mnt'))
  }

  /** A new daemon for an image, not started yet. */
  dedicated({ directory, idMapping }: ImageRequest): Nydusd {
    return this.#add('dedicated', join(directory, idMapping === undefined ? 'mnt' : `mnt-${idMapping.host}`))
  }

  #add(mode: 'shared' | 'dedicated', mountpoint: string): Nydusd {
    const daemon = new Nydusd(this.#parts, newDaemon(this.#parts.settings, { id: newDaemonId(), mode, mountpoint }))
    this.#daemons.set(daemon.id, daemon)
    return daemon
  }

  /** Ends a daemon, with all that it has. Never throws: what is left is logged. */
  async end(daemon: Nydusd): Promise<void> {
    this.#daemons.delete(daemon.id)
    await daemon.destroy()
  }

  statuses(): readonly DaemonStatus[] {
    return this.all.map(statusOf)
  }

  /** What the daemons count; those that do not serve have nothing to tell. */
  async metrics(signal: AbortSignal): Promise<readonly DaemonMetrics[]> {
    const serving = this.all.filter(({ state }) => state === 'running')
    const all: DaemonMetrics[] = []
    await inParallel(serving, async (daemon) => void all.push(await metricsOf(daemon, signal)))
    return all
  }

  /** Replaces the program of all daemons while they serve. The first failure ends it; what was not replaced goes on as it was. Throws SnapshotterError. */
  async upgrade(program: string): Promise<void> {
    await upgradeAll(this.all, program, this.#parts.settings.daemon.nydusdPath)
  }

  /** Resolves when no daemon is being started, brought back or replaced. */
  async settled(): Promise<void> {
    for (const daemon of this.#daemons.values()) await daemon.turns.settled()
  }

  /** Nobody looks any more whether daemons hang. */
  unwatch(): void {
    this.#watchdog?.stop()
  }

  /** Daemons go on without us, unless the configuration has them end, or they have nothing to serve: `onEnded` is told of the images of these. No call may follow. */
  async leave(onEnded: (key: string) => void): Promise<void> {
    const { settings, cgroup } = this.#parts
    await inParallel(this.all, async (daemon) => {
      if (settings.cleanupOnClose || (daemon.isShared && daemon.images.size === 0)) {
        for (const key of daemon.images.keys()) onEnded(key)
        await daemon.destroy()
      } else daemon.release()
    })
    this.#daemons.clear()
    cgroup?.remove()
  }
}
