import { DecodePool } from '../engine/index.ts'
import type { BackendMetricsJson } from '../backend/index.ts'
import type { Config } from './config/schema.ts'
import { withoutSecrets } from './config/settings.ts'
import { cacheMetricsJson } from './cache-metrics.ts'
import { type DaemonOptions, wishesOf } from './daemon-options.ts'
import { DaemonError } from './errors.ts'
import { EventLog } from './events.ts'
import { FileMetrics } from './file-counters.ts'
import { FilesThread } from './files/files-thread.ts'
import { fileSystemType, fromApi, ImageRequests, type MountRequest } from './image-requests.ts'
import { ReadReports } from './read-reports.ts'
import { noMoreThreads } from './later-threads.ts'
import { LateReads } from './late-reads.ts'
import { replacedLogin } from './live-login.ts'
import { dynamicNotice } from './live-proxy.ts'
import { FileSystemCounters, FileSystemMetrics, type FileSystemMetricsJson } from './metrics.ts'
import type { Mount, Share } from './mount-opener.ts'
import { MountTable, notRemounted } from './mounts.ts'
import { type OnFailedImage, SessionHandover } from './session-handover.ts'
import { type DaemonEvent, type DaemonState, nextState } from './state.ts'
import { FuseSession } from './transports/fuse.ts'
import type { Session, FuseSessionOptions } from './transports/session.ts'
import type { HandedOver } from './handover/supervisor.ts'

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
  readonly #handover: SessionHandover
  #state: DaemonState = 'INIT'
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
    this.#handover = new SessionHandover({
      ...options,
      exchangesOpens: wishesOf(options).exchangesOpens,
      session: this.#session,
      mounts: this.#mounts,
      requests: this.#requests,
      dynamic: this.dynamic,
    })
    this.#late = this.#lateReads()
  }

  #lateReads(): LateReads {
    return new LateReads({
      budgetBytes: LATE_BYTES,
      deadlineMs: (read) => this.#mounts.bySlot(read.slot)?.image.settings.readDeadlineMs ?? 0,
      fill: async (read, into, deadlineMs) => {
        const { image } = this.#mountOf(read.slot)
        return await image.read(read.ino, read.offset, into, deadlineMs)
      },
      answer: (read, message, bytes, errno) => this.#session.answer(read, message, bytes, errno),
      onDone: (read, end) => {
        if (end.error === undefined || this.#state !== 'STOPPED')
          this.#reports.done(this.#mounts.bySlot(read.slot), read, end)
      },
    })
  }

  /** Throws DaemonError 'NOT_FOUND'. */
  #mountOf(slot: number): Mount {
    const mount = this.#mounts.bySlot(slot)
    if (mount === undefined) throw new DaemonError('NOT_FOUND', 'the image was unmounted')
    return mount
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
    await this.#handover.send()
  }

  /** Takes the session that the supervisor keeps; after that `serve` may be called. Throws DaemonError 'BAD_STATE', 'HANDOVER'; then it may be tried again. */
  async takeOver(): Promise<void> {
    nextState(this.#isTakingOver ? 'READY' : this.#state, 'Takeover')
    this.#isTakingOver = true
    try {
      await this.#handover.receive(() => this.#step('Takeover'))
    } finally {
      this.#isTakingOver = false
    }
  }

  /** The same with a session that is here; its device is ours from now on. `onFailure` is told of images that cannot be opened, and may throw. Throws DaemonError 'HANDOVER'. */
  async restore(handed: HandedOver, onFailure: OnFailedImage): Promise<void> {
    await this.#handover.restore(handed, onFailure, () => this.#step('Takeover'))
  }

  /** What another daemon needs to go on with this session. Throws DaemonError 'NOT_READY'. */
  async stateNow(): Promise<Buffer> {
    return await this.#handover.stateNow()
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
    await this.#session.serve(this.#mounts.served, (device) => this.#handover.drain(device))
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

  /** What is changed from now on is changed by another daemon only. */
  async #leaveRequests(device: number): Promise<void> {
    await this.#files?.end(true)
    await this.#handover.drain(device)
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
    const { image } = this.#mountOf(slot)
    const into = Buffer.allocUnsafeSlow(count)
    const bytes = await image.read(ino, offset, into, image.settings.readDeadlineMs)
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
