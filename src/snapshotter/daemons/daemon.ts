import { mkdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { SnapshotterError } from '../errors.ts'
import type { RecordTable } from '../store/index.ts'
import { DaemonApi } from './api-client.ts'
import type { Cgroup } from './cgroup.ts'
import { DeathPauses } from './death-pauses.ts'
import type { DaemonEvents } from './events.ts'
import { Launched } from './launch.ts'
import { Liveness } from './liveness.ts'
import { messageOf } from './message.ts'
import { configPath, detach, isMountPoint, newDaemon, nextSocket, removeFiles, sessionPath } from './places.ts'
import { servesSocket, processesServing, processorSeconds, signalProcess, waitUntil } from './processes.ts'
import type { DaemonRecord, InstanceRecord } from './records.ts'
import { recover, remount } from './recover.ts'
import { configText, tellRenewed } from './relogin.ts'
import type { DaemonLog, DaemonSettings } from './settings.ts'
import { SessionKeeper } from './session-keeper.ts'
import { Turns } from './turns.ts'

/** An image that a daemon is to serve. */
export interface DaemonImage {
  record: InstanceRecord
  readonly bootstrap: string
  /** Paths in the image; consumed by its first mount. */
  prefetch: readonly string[]
  /** The file of these paths, of a dedicated daemon. */
  prefetchList: string | undefined
  isMounted: boolean
}

export interface DaemonParts {
  readonly settings: DaemonSettings
  readonly records: RecordTable
  readonly log: DaemonLog
  readonly events: DaemonEvents
  readonly cgroup: Cgroup | undefined
}

/** A nydusd that is told to end has 4.5 s for it. */
const TERM_MS = 7_000
const KILL_MS = 5_000
const CALLS_MS = 30_000

/**
 * A nydusd and its life: started, watched, brought back when it dies, replaced by a newer one, ended. What changes its process happens one after another (`turns`);
 * images are mounted and unmounted in between, any number at a time.
 */
export class Nydusd {
  readonly parts: DaemonParts
  record: DaemonRecord
  /** By key; in the order of their mounts. */
  readonly images = new Map<string, DaemonImage>()
  readonly turns = new Turns()
  state: 'starting' | 'running' | 'dead' | 'destroyed' = 'starting'
  /** Why it is dead. */
  lastError: unknown
  version = { packageVersion: '', gitCommit: '' }
  /** What of it does not answer, and for how long; '' when it answers. */
  silence = ''
  /** Of one processor, in percent; of the time after its start. */
  startupCpuPercent = 0
  readonly sessions: SessionKeeper
  /** What tells a login takes its turn: the one that was written last is told last. */
  readonly loginTurns = new Turns()
  /** Nothing of it was ever started. */
  isNew: boolean
  /** Whoever needs a dead daemon waits for the same attempt. */
  #revival: Promise<void> | undefined
  #liveness: Liveness | undefined
  #calls = 0
  readonly #deaths = new DeathPauses()

  /** `recorded` by an earlier process: it may be there, in whatever state. */
  constructor(parts: DaemonParts, record: DaemonRecord, origin: 'recorded' | 'new' = 'new') {
    this.isNew = origin === 'new'
    this.parts = parts
    this.record = record
    this.sessions = new SessionKeeper({
      name: record.ID,
      path: join(parts.settings.root, 'supervisor', record.ID),
      log: parts.log,
      source: () => ({
        supervisorPath: this.record.SupervisorPath,
        api: this.api,
        isRunning: this.state === 'running',
      }),
    })
  }

  get id(): string {
    return this.record.ID
  }

  get isShared(): boolean {
    return this.record.DaemonMode === 'shared'
  }

  get api(): DaemonApi {
    return new DaemonApi(this.record.APISocket)
  }

  /** Resolves when it serves: waits for what is under way, and brings back one that is dead. Throws SnapshotterError. */
  async running(): Promise<void> {
    await this.turns.settled()
    if (this.state === 'running') return
    this.#revival ??= this.turns
      .take(async () => {
        if (this.state === 'destroyed') throw new SnapshotterError('UNAVAILABLE', `nydusd ${this.id} was ended`)
        if (this.state !== 'running') await recover(this, 'anyway')
      })
      .finally(() => {
        this.#revival = undefined
      })
    await this.#revival
  }

  /**
   * As `running`, and its session is where it shall be. Somebody may have detached it while containers use it: then its process is left to them, and ends with the
   * last of them; another one serves what comes from now on.
   */
  async serving(): Promise<void> {
    await this.running()
    if (await isMountPoint(this.record.Mountpoint)) return
    await this.turns.take(async () => {
      if (this.state !== 'running' || (await isMountPoint(this.record.Mountpoint))) return
      this.parts.log.warn(`nydusd ${this.id} is not mounted at ${this.record.Mountpoint} any more; another one is`)
      this.unwatch()
      this.state = 'dead'
      this.record = { ...this.record, APISocket: nextSocket(this.record.APISocket) }
      await this.startFresh()
      await remount(this)
    })
    await this.running()
  }

  /** Mounts an image of a shared daemon. One that is mounted already is no error. */
  async mount(image: DaemonImage): Promise<void> {
    await this.serving()
    if (image.isMounted) return
    this.#calls++
    try {
      await this.mountNow(image)
    } catch (error) {
      if (this.state === 'running') throw error
      await this.running() // it died under the call: whoever comes after it mounts all its images
      if (!image.isMounted) await this.mountNow(image)
    } finally {
      this.#calls--
    }
    await this.sessions.save()
  }

  /** The call alone, by those who know that the daemon serves. */
  async mountNow(image: DaemonImage): Promise<void> {
    const { SnapshotID: key } = image.record
    const at = sessionPath(this.record, key)
    const config = await configText(this, image)
    try {
      await this.api.mount(at, { source: image.bootstrap, config, prefetchFiles: image.prefetch })
    } catch (error) {
      const isThere = await this.api.info().then(
        ({ mounted }) => mounted.includes(at),
        () => false,
      )
      if (!isThere) throw error
    }
    image.isMounted = true
    image.prefetch = []
    await tellRenewed(this, image, config)
  }

  /** Takes an image out of a shared daemon. */
  async unmount(key: string): Promise<void> {
    this.images.delete(key)
    await this.turns.settled()
    if (this.state !== 'running') return // it is not mounted again
    this.#calls++
    try {
      const at = sessionPath(this.record, key)
      const { mounted } = await this.api.info()
      if (mounted.includes(at)) await this.api.unmount(at)
    } finally {
      this.#calls--
    }
    await this.sessions.save()
  }

  /** Resolves when no call is under way that changes what is mounted. */
  async quiet(): Promise<boolean> {
    return await waitUntil(() => this.#calls === 0, CALLS_MS)
  }

  /** A new process on a new session. Whatever is left of an earlier one is cleared away. */
  async startFresh(): Promise<void> {
    if (!this.isNew) await this.#clear()
    this.isNew = false
    this.#renew()
    const { record } = this
    for (const directory of [dirname(record.APISocket), record.ConfigDir])
      mkdirSync(directory, { recursive: true, mode: 0o700 })
    mkdirSync(record.Mountpoint, { recursive: true, mode: 0o755 })
    for (const image of this.images.values()) image.isMounted = false
    this.persist()
    const [image] = this.isShared ? [] : this.images.values()
    const config = image && (await configText(this, image))
    const launched = await this.launch(this.parts.settings.daemon.nydusdPath, false)
    try {
      await launched.waitFor(['RUNNING'], this.parts.settings.daemon.startupTimeoutMs)
    } catch (error) {
      await this.abandon(launched)
      await this.#clear()
      throw error
    }
    if (image !== undefined) image.isMounted = true
    await this.attach()
    if (image !== undefined && config !== undefined) await tellRenewed(this, image, config)
  }

  /** A new session follows the configuration of today; where things are stays as it was. */
  #renew(): void {
    const { ID: id, Mountpoint: mountpoint, APISocket, ConfigDir, LogDir } = this.record
    const mode = this.isShared ? 'shared' : 'dedicated'
    this.record = { ...newDaemon(this.parts.settings, { id, mode, mountpoint }), APISocket, ConfigDir, LogDir }
  }

  /** Another process for the session that is there: it waits for a takeover. */
  async launch(program: string, isUpgrade: boolean): Promise<Launched> {
    const [image] = this.isShared ? [] : this.images.values()
    const config = configPath(this.record, '')
    const dedicated = image && { bootstrap: image.bootstrap, config, prefetchList: image.prefetchList }
    const launched = await Launched.start(this.record, { program, isUpgrade, image: dedicated })
    if (image !== undefined) image.prefetchList = undefined
    this.#measure(launched.pid)
    return launched
  }

  /** Ends a process that does not do what it was started for. By SIGKILL: in order, it would unmount. */
  async abandon(launched: Launched | undefined): Promise<void> {
    if ((await launched?.kill()) === false)
      this.parts.log.warn(`process ${launched?.pid} of nydusd ${this.id} does not end, though it is killed`)
    await this.killAll(this.record.APISocket)
  }

  /** Watches a daemon that serves, and keeps what a successor needs. Throws when it is gone already. */
  async attach(): Promise<void> {
    const { log, events, cgroup } = this.parts
    const liveness = await Liveness.watch(this.record.APISocket)
    const { version } = await this.api.info()
    this.#liveness?.stop()
    this.#liveness = liveness
    this.record = { ...this.record, ProcessID: liveness.pid }
    this.version = version
    this.persist()
    this.state = 'running'
    this.lastError = undefined
    log.info(`nydusd ${this.id} serves ${this.record.Mountpoint} (pid ${liveness.pid}, ${version.packageVersion})`)
    events.emit('RUNNING', this.id, version.packageVersion)
    await cgroup?.add(liveness.pid)
    liveness.onEnd(() => this.#died())
    await this.sessions.save()
  }

  /** Nobody is told when this process ends from now on. */
  unwatch(): void {
    this.#liveness?.stop()
    this.#liveness = undefined
  }

  #died(): void {
    if (this.state !== 'running') return
    this.state = 'dead'
    this.silence = ''
    this.unwatch()
    this.parts.log.warn(`nydusd ${this.id} (pid ${this.record.ProcessID}) is gone`)
    this.parts.events.emit('DIED', this.id, this.version.packageVersion)
    const bring = (): void =>
      void this.turns.take(async () => {
        if (this.state === 'dead') await recover(this, 'by policy')
      })
    const pauseMs = this.#deaths.died()
    if (pauseMs === 0) bring()
    else setTimeout(bring, pauseMs).unref()
  }

  persist(): void {
    this.parts.records.put(this.id, JSON.stringify(this.record))
  }

  /** Ends the process, unmounts, and removes all that it had; the record comes last, so that the next start goes on where this process ends. Never throws: what is left is told. */
  async destroy(): Promise<void> {
    await this.turns.take(async () => {
      if (this.state === 'destroyed') return
      const { log, records, events } = this.parts
      this.state = 'destroyed'
      this.unwatch()
      try {
        await this.#terminate()
        await this.#clear()
        await removeFiles(this.record)
        records.remove(this.id)
      } catch (error) {
        log.error(`something is left of nydusd ${this.id}: ${messageOf(error)}`)
      }
      events.emit('DESTROYED', this.id, this.version.packageVersion)
      log.info(`nydusd ${this.id} is ended`)
    })
  }

  /** Only forgets: the process goes on, and the next snapshotter finds it. */
  release(): void {
    this.unwatch()
    this.state = 'destroyed' // for us: nobody starts it from here
    this.sessions.release()
  }

  async #terminate(): Promise<void> {
    const { APISocket, ProcessID } = this.record
    if (ProcessID <= 0 || !servesSocket(ProcessID, APISocket)) return
    signalProcess(ProcessID, 'SIGTERM')
    if (!(await waitUntil(() => !servesSocket(ProcessID, APISocket), TERM_MS)))
      this.parts.log.warn(`nydusd ${this.id} (pid ${ProcessID}) does not end by SIGTERM, and is killed`)
  }

  /** Nobody serves the session any more, and nobody keeps it. */
  async #clear(): Promise<void> {
    await this.killAll(this.record.APISocket)
    this.sessions.end()
    await detach(this.record.Mountpoint)
    rmSync(this.record.APISocket, { force: true })
  }

  /** The daemon of that socket and its keeper, which would bring it back; a keeper is older, and is killed first. */
  async killAll(socket: string): Promise<void> {
    const isGone = await waitUntil(async () => {
      const pids = await processesServing(socket)
      for (const pid of pids) signalProcess(pid, 'SIGKILL')
      return pids.length === 0
    }, KILL_MS)
    if (!isGone) this.parts.log.warn(`processes of nydusd ${this.id} do not end, though they are killed`)
  }

  #measure(pid: number): void {
    const { cpuProfileSeconds: seconds } = this.parts.settings.system
    if (seconds <= 0) return
    setTimeout(() => {
      this.startupCpuPercent = (100 * processorSeconds(pid)) / seconds
    }, seconds * 1000).unref()
  }
}
