import { closeSync } from 'node:fs'
import type { ChunkDedup } from '../cache/index.ts'
import { DecodePool } from '../engine/index.ts'
import { type FuseWishes, UNCHANGING } from '../kernel/index.ts'
import type { BackendMetricsJson } from '../backend/index.ts'
import type { Config } from './config/schema.ts'
import { withoutSecrets } from './config/settings.ts'
import { cacheMetricsJson } from './cache-metrics.ts'
import { DaemonError, messageOf } from './errors.ts'
import { EventLog } from './events.ts'
import { FileMetrics } from './file-counters.ts'
import { FilesThread } from './files/files-thread.ts'
import type { ImageRequest } from './image.ts'
import {
  fileSystemType,
  fromApi,
  fromRecord,
  ImageRequests,
  type InitialMount,
  type MountRequest,
} from './image-requests.ts'
import { ReadReports } from './read-reports.ts'
import { noMoreThreads } from './later-threads.ts'
import { LateReads } from './late-reads.ts'
import { replacedLogin } from './live-login.ts'
import { dynamicNotice } from './live-proxy.ts'
import type { Log } from './log.ts'
import { FileSystemCounters, FileSystemMetrics, type FileSystemMetricsJson } from './metrics.ts'
import { type Mount, MountTable, notRemounted, type Share } from './mounts.ts'
import { type DaemonEvent, type DaemonState, nextState } from './state.ts'
import { FuseSession, type FuseSessionOptions, type Session } from './transports/fuse.ts'
import { drainRequests, type FailoverPolicy } from './handover/drain.ts'
import { connectionOf, optionsOf } from './handover/session-facts.ts'
import { decodeState, encodeState, type MountRecord, type SessionState } from './handover/session-state.ts'
import { type HandedOver, receiveFromSupervisor, sendToSupervisor } from './handover/supervisor.ts'

export interface DaemonOptions {
  /** The host's directory; must be free: `prepareMountPoint`. */
  readonly at: string
  readonly id: string | undefined
  readonly supervisor: string | undefined
  readonly failover: FailoverPolicy
  readonly threads: number
  /** Makes the session; without it one of /dev/fuse. */
  readonly openSession?: (of: FuseSessionOptions) => Session
  readonly initial: InitialMount | undefined
  /** A directory of the host that is shown from the start, in the place of an image. */
  readonly share: { readonly path: string; readonly directory: string } | undefined
  /** The session may be written to, as far as what is mounted in it can be. */
  readonly writable: boolean
  /** The node's deduplication database; closed with the daemon. */
  readonly dedup?: ChunkDedup | undefined
  readonly log: Log
  /** Told of every change of what is mounted, or set by the API, before who asked for it gets an answer. */
  readonly onChange?: () => Promise<void> | undefined
  /** The session ended by itself. */
  readonly onEnd: (why: 'unmounted' | Error) => void
}

type Inheritance = Pick<SessionState, 'connection' | 'options'>

/** Memory for answers that wait for data. */
const LATE_BYTES = 64 << 20
/** One FUSE session and the images in it. */
export class Daemon {
  readonly options: DaemonOptions
  readonly events = new EventLog()
  /** Settings that the API changes: `<mount path>:<key>` to value. */
  readonly dynamic = new Map<string, string>()
  readonly #decoders: DecodePool
  /** Of the thread that answers late reads. */
  readonly #counters = new FileSystemCounters()
  readonly #mounts: MountTable
  readonly #late: LateReads
  readonly #session: Session
  #files: FilesThread | undefined
  readonly #reports: ReadReports
  readonly #requests: ImageRequests
  #state: DaemonState = 'INIT'
  /** Set in a daemon that goes on with another's session. */
  #inherited: Inheritance | undefined
  #isTakingOver = false

  private constructor(options: DaemonOptions) {
    this.options = options
    const { log, at, threads, writable } = options
    this.#decoders = new DecodePool(undefined, (why) => log.warn(noMoreThreads('decode', why)))
    this.#requests = new ImageRequests(options, this.dynamic)
    this.#reports = new ReadReports(this.#counters, this.events, log)
    const openSession = options.openSession ?? ((of: FuseSessionOptions): Session => new FuseSession(of))
    this.#session = openSession({
      at,
      threads,
      readOnly: !writable,
      wishes: wishesOf(options),
      log,
      onLateRead: (read) => this.#late.add(read),
      onEnd: options.onEnd,
    })
    this.#mounts = new MountTable(
      this.#decoders,
      (slot) => {
        for (const counters of this.#allCounters) counters.clear(slot)
      },
      () => this.#startFiles(),
    )
    this.#late = new LateReads({
      budgetBytes: LATE_BYTES,
      deadlineMs: (read) => this.#mounts.bySlot(read.slot)?.image.settings.readDeadlineMs ?? 0,
      fill: async (read, into, deadlineMs) => {
        const mount = this.#mounts.bySlot(read.slot)
        if (mount === undefined) throw new DaemonError('NOT_FOUND', 'the image was unmounted')
        return await mount.image.read(read.ino, read.offset, into, deadlineMs)
      },
      answer: (read, message, bytes, errno) => this.#session.answer(read, message, bytes, errno),
      onDone: (read, end) => {
        if (end.error === undefined || this.#state !== 'STOPPED')
          this.#reports.done(this.#mounts.bySlot(read.slot), read, end)
      },
    })
  }

  /** Mounts, with the initial image when there is one; resolves when the mount answers. Throws DaemonError; then nothing stays. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(options)
    try {
      const { initial, share } = options
      if (share !== undefined) await daemon.#mounts.share(share.path, share.directory)
      if (initial !== undefined) await daemon.#mounts.mount(initial.path, daemon.#requests.of(initial.path, initial))
      await daemon.#session.mount(daemon.#mounts.served)
      daemon.#step('Mount')
      daemon.#step('Start')
      daemon.#mounts.listen(daemon.#session)
    } catch (error) {
      daemon.#session.detachNow()
      await daemon.#closeAll()
      throw error
    }
    return daemon
  }

  /** Mounts nothing and waits, for a takeover. */
  static waiting(options: DaemonOptions): Daemon {
    return new Daemon(options)
  }

  /** Gives state and device to the supervisor, and goes on serving. Throws DaemonError 'NOT_READY', 'HANDOVER'. */
  async sendState(): Promise<void> {
    const { device } = this.#session
    if (device === undefined) throw new DaemonError('NOT_READY', 'there is no session yet that could be given away')
    await sendToSupervisor(this.options.supervisor, await this.stateNow(), device)
    this.options.log.info('session and state are with the supervisor')
  }

  /** Takes the session that the supervisor keeps; after that `serve` may be called. Throws DaemonError 'BAD_STATE', 'HANDOVER'; then it may be tried again. */
  async takeOver(): Promise<void> {
    nextState(this.#isTakingOver ? 'READY' : this.#state, 'Takeover')
    this.#isTakingOver = true
    try {
      const handed = await receiveFromSupervisor(this.options.supervisor)
      await this.restore(handed, (path, error) => {
        throw new DaemonError('HANDOVER', `cannot take over ${path}: ${messageOf(error)}`, { cause: error })
      })
    } finally {
      this.#isTakingOver = false
    }
  }

  /** The same with a session that is here; its device is ours from now on. `onFailure` is told of images that cannot be opened, and may throw. Throws DaemonError 'HANDOVER'. */
  async restore({ state, device }: HandedOver, onFailure: (path: string, error: unknown) => void): Promise<void> {
    try {
      const session = decodeState(state)
      this.#checkOwnOverlays()
      for (const [key, value] of session.settings) this.dynamic.set(key, value)
      await this.#mounts.restore(session, (record) => this.#restoredRequest(record), onFailure)
      this.#step('Takeover')
      this.#session.adopt(device, session.connection)
      this.#inherited = session
    } catch (error) {
      closeSync(device)
      throw error
    }
    this.options.log.info(`took over the session of another daemon at ${this.options.at}: ${this.mounts.length} mounts`)
  }

  /** The session's device; undefined while there is none. */
  get device(): number | undefined {
    return this.#session.device
  }
  get state(): DaemonState {
    return this.#state
  }
  get mounts(): readonly Mount[] {
    return this.#mounts.all
  }
  /** Shared directories. */
  get shares(): readonly Share[] {
    return this.#mounts.shares
  }
  /** Serving threads. */
  get threads(): number {
    return this.#session.threads
  }

  /** Reads that wait for data now. */
  inflight(): ReturnType<LateReads['list']> {
    return this.#late.list()
  }

  /** Throws DaemonError. */
  async mount(path: string, request: MountRequest): Promise<void> {
    if (fileSystemType(request.fs_type) === 'rafs')
      await this.#mounts.mount(path, this.#requests.of(path, fromApi(request)))
    else await this.#mounts.share(path, request.source)
    this.options.log.info(`mounted ${request.source} at ${path}`)
    await this.options.onChange?.()
  }

  /** Throws DaemonError. */
  async remount(path: string, request: MountRequest): Promise<void> {
    if (fileSystemType(request.fs_type) !== 'rafs' || this.shares.some((share) => share.path === path))
      throw notRemounted(path)
    await this.#mounts.remount(path, this.#requests.of(path, fromApi(request)))
    this.options.log.info(`remounted ${request.source} at ${path}`)
    await this.options.onChange?.()
  }

  /** Throws DaemonError. */
  async unmount(path: string): Promise<void> {
    await this.#mounts.unmount(path)
    this.options.log.info(`unmounted ${path}`)
    await this.options.onChange?.()
  }

  /** Counters of one mount, of all threads. */
  fileSystemMetrics(mount: Mount): FileSystemMetricsJson {
    return this.#metricsOf(mount).json(mount.path, mount.image.settings.recorded)
  }

  /** What is recorded of a mount's files; undefined when the configuration wants none of it. */
  fileMetrics({ image }: Mount): FileMetrics | undefined {
    return image.recording === undefined ? undefined : new FileMetrics(image.recording)
  }

  /** Reads of a mount, and those of them that needed nothing but the cache. */
  cacheHits(mount: Mount): { readonly hits: number; readonly reads: number } {
    const { hotReads, reads } = this.#metricsOf(mount)
    return { hits: hotReads, reads }
  }

  backendMetrics(mount: Mount): BackendMetricsJson {
    return mount.image.metrics.toJSON()
  }

  /** What upstream's `metrics/blobcache` tells. */
  cacheMetrics(mount: Mount): Record<string, unknown> {
    return cacheMetricsJson(mount.image, this.cacheHits(mount))
  }

  /** The configuration of a mount as anybody may see it. */
  shownConfig(mount: Mount): Config {
    return withoutSecrets(mount.image.request.config)
  }

  /** Changes a setting of a mount while it is used. */
  setDynamic(id: string, key: string, value: string): void {
    const notice = this.dynamic.get(`${id}:${key}`) === value ? undefined : dynamicNotice(key, value)
    if (notice !== undefined) this.options.log.warn(`settings of ${id}: ${notice}`)
    const replaced = replacedLogin(key)
    if (replaced !== undefined && value !== '') this.dynamic.delete(`${id}:${replaced}`)
    this.dynamic.set(`${id}:${key}`, value)
  }

  /** Unmounts the session and closes all images. A mount in use is detached. */
  async stop(): Promise<void> {
    if (this.#state === 'STOPPED') return
    if (this.#state === 'RUNNING') this.#step('Stop')
    this.#step('Stop')
    await this.#session.unmount()
    await this.#closeAll()
  }

  /** Stops serving and leaves the mount behind: what upstream's API calls exit. Its users see errors until somebody unmounts it. */
  async exit(): Promise<void> {
    if (this.#state === 'STOPPED') return
    if (this.#state === 'RUNNING') this.#step('Stop')
    this.#step(this.#state === 'INIT' ? 'Stop' : 'Exit')
    const isLeft = this.options.supervisor !== undefined
    if (isLeft) await this.#session.leave((device) => this.#leaveRequests(device))
    await this.#closeAll(isLeft)
  }

  /** Serves a session that was taken over. Throws DaemonError 'BAD_STATE' when there is none, or it is served. */
  async serve(): Promise<void> {
    this.#step('Start')
    this.#mounts.listen(this.#session)
    await this.#session.serve(this.#mounts.served, (device) => this.#drain(device))
    this.#mounts.prefetch()
  }

  /** Is this session what stands at the mount point? */
  get isMounted(): boolean {
    return this.#session.isAtPoint
  }

  /** For the last moments of a process that fails. */
  detachNow(): void {
    this.#session.detachNow()
  }

  #restoredRequest(record: MountRecord): ImageRequest {
    const request = this.#requests.of(record.path, fromRecord(record))
    if ((request.config.overlay !== null) !== (record.kind === 'overlay'))
      throw new DaemonError(
        'HANDOVER',
        "a session with an overlay is taken over from this project's daemons only: the state does not say what is in hand of it",
      )
    return request
  }

  /** They would get other slots, which their users would not know. */
  #checkOwnOverlays(): void {
    if (this.mounts.some(({ image }) => image.settings.overlay !== undefined))
      throw new DaemonError(
        'HANDOVER',
        'a daemon that has mounted an overlay cannot take over a session; start another',
      )
  }

  /** What is changed from now on is changed by another daemon only. */
  async #leaveRequests(device: number): Promise<void> {
    await this.#files?.end(true)
    await this.#drain(device)
  }

  async #drain(device: number): Promise<void> {
    const { failover, log } = this.options
    await drainRequests(device, this.#inherited?.connection ?? 0n, failover, log)
  }

  /** What another daemon needs to go on with this session. Throws DaemonError 'NOT_READY'. */
  async stateNow(): Promise<Buffer> {
    const { facts } = this.#session
    const { connection, options } = this.#inherited ?? {
      connection: await connectionOf(this.options.at),
      options: facts === undefined ? undefined : optionsOf(facts, wishesOf(this.options).exchangesOpens),
    }
    if (options === undefined) throw new DaemonError('NOT_READY', 'the kernel has not begun the session yet')
    return encodeState({ connection, options, settings: this.dynamic, ...this.#mounts.tree })
  }

  /** `isLeft`: another daemon goes on. */
  async #closeAll(isLeft = false): Promise<void> {
    await this.#session.stopServing()
    await this.#files?.end(isLeft)
    await this.#mounts.close()
    this.options.dedup?.close()
    await this.#decoders.close()
    this.#session.close()
  }

  async #startFiles(): Promise<FilesThread> {
    if (this.#files === undefined) {
      this.#files = new FilesThread({
        log: this.options.log,
        onLateRead: (read) => this.#late.add(read),
        readImage: (slot, ino, offset, count) => this.#readImage(slot, ino, offset, count),
        onFailure: this.options.onEnd,
      })
      try {
        await this.#session.useFiles(this.#files)
      } catch (error) {
        await this.#files.end()
        this.#files = undefined // the next one is refused too
        throw error
      }
    }
    return this.#files
  }

  /** For a copy to an upper directory. */
  async #readImage(slot: number, ino: number, offset: number, count: number): Promise<Uint8Array> {
    const mount = this.#mounts.bySlot(slot)
    if (mount === undefined) throw new DaemonError('NOT_FOUND', 'the image was unmounted')
    const into = Buffer.allocUnsafeSlow(count)
    const bytes = await mount.image.read(ino, offset, into, mount.image.settings.readDeadlineMs)
    return into.subarray(0, bytes)
  }

  #step(event: DaemonEvent): void {
    this.#state = nextState(this.#state, event)
  }

  get #allCounters(): readonly FileSystemCounters[] {
    const files = this.#files === undefined ? [] : [this.#files.counters]
    return [this.#counters, ...files, ...this.#session.counters]
  }

  #metricsOf(mount: Mount): FileSystemMetrics {
    return new FileSystemMetrics(this.#allCounters, mount.slot)
  }
}

/** Largest WRITE. */
const WRITE_BYTES = 1 << 20

/** What goes with opens is left out of sessions that only have images, which never change. */
function wishesOf({ initial, share, writable }: DaemonOptions): FuseWishes {
  return {
    exchangesOpens: writable || share !== undefined,
    followsChanges: writable || initial === undefined,
    maxWriteBytes: writable ? WRITE_BYTES : UNCHANGING.maxWriteBytes,
  }
}
