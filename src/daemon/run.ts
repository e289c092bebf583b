import { createReadStream, existsSync } from 'node:fs'
import { flushCompileCache } from 'node:module'
import { ChunkDedup } from '../cache/index.ts'
import { exitNow, raiseFileLimit } from '../kernel/index.ts'
import { ROUTES } from './api/routes.ts'
import { ApiServer, checkSocket, isAnswered } from './api/server.ts'
import { Daemon } from './daemon.ts'
import type { DaemonOptions } from './daemon-options.ts'
import type { InitialMount } from './image-requests.ts'
import { DaemonError, messageOf } from './errors.ts'
import { Log, type LogFilter, type LogLevel } from './log.ts'
import type { FailoverPolicy } from './handover/drain.ts'
import { endKeeper, type Kept, Keeper, keepersAreOn, takeKept } from './keeper/keeper.ts'
import { resumeDaemon } from './keeper/resume.ts'
import { isMounted, mountPointName, prepareMountPoint } from './mount-point.ts'
import { releaseWhenIdle } from './release-pages.ts'
import { startServingThread } from './serving-thread/index.ts'
import { versionInfo } from './version/index.ts'

/** The command line of a FUSE daemon, as values. */
export interface RunOptions {
  readonly mountPoint: string
  readonly apiSocket: string | undefined
  readonly id: string | undefined
  readonly supervisor: string | undefined
  /** Wait for a takeover instead of mounting; without an API nobody could ask for it, and this counts for nothing. */
  readonly upgrade: boolean
  readonly failover: FailoverPolicy
  /** Have a process that brings the daemon back when it dies. A supervisor does that itself. */
  readonly keeper: boolean
  readonly threads: number
  /** File of the node's deduplication database. */
  readonly dedupDb?: string | undefined
  /** Wanted number of descriptors; 0 leaves it. */
  readonly fileLimit: number
  readonly log: {
    readonly level: LogLevel
    readonly file: string | undefined
    readonly rotationMib: number
    readonly filter: LogFilter | undefined
  }
  readonly image:
    | {
        readonly bootstrap: string
        readonly virtualMountPoint: string
        /** A configuration file, or the folder for both blobs and cache. */
        readonly config: { readonly file: string } | { readonly localfsDir: string }
        /** A file of paths, a line each; `-` = standard input. */
        readonly prefetchFiles: string | undefined
      }
    | undefined
  /** In the place of an image. */
  readonly share: { readonly directory: string; readonly virtualMountPoint: string } | undefined
  readonly writable: boolean
}

const STOP_DEADLINE_MS = 4_500
/** A start that is told to stop may still end in order; one that hangs may not. */
const START_GRACE_MS = 2_000
const KEEP_CODE_MS = 2_000
/** When the start is over, and when what follows it is. */
const RELEASE_MS = [500, 2_500]
/** No configuration and no list of files is longer. */
const MAX_TEXT_BYTES = 16 << 20

/**
 * Runs a FUSE daemon until a signal, the API or an unmount ends it. Ends the process itself: `process.exit` would wait for ever for a thread that the kernel
 * holds. Rejects only when the daemon does not start; nothing is left then.
 */
export async function runDaemon(options: RunOptions): Promise<never> {
  const kept = takeKept()
  startServingThread()
  if (options.apiSocket !== undefined) process.getBuiltinModule('node:http') // while the thread starts
  const log = openLog(options)
  const end = Promise.withResolvers<End>()
  let giveUpStart: NodeJS.Timeout | undefined
  let keeper: Keeper | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    end.resolve({ kind: 'stop', why: signal })
    giveUpStart ??= setTimeout(() => {
      log.error(`nydusd stops: ${signal}, before it had started`)
      keeper?.end()
      if (kept !== undefined) endKeeper(kept.keeper)
      exitNow(1)
    }, START_GRACE_MS)
  }
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  // Whoever reads this line may send signals.
  const { package_ver: version, git_commit: commit, rustc: runtime } = versionInfo()
  log.info(`Program Version: ${version}, Git Commit: "${commit}", Runtime: "${runtime}"`)
  limitFiles(options.fileLimit, log)
  const daemon = await start(options, kept, {
    log,
    onChange: () => keeper?.update(),
    onEnd: (why) =>
      end.resolve(
        why instanceof Error
          ? { kind: 'failure', error: why }
          : { kind: 'stop', why: `${options.mountPoint} was unmounted` },
      ),
  })
  process.on('uncaughtException', (error) => end.resolve({ kind: 'failure', error }))
  process.on('unhandledRejection', (error) => end.resolve({ kind: 'failure', error }))
  // Before the API: whoever is told that this daemon runs may rely on its coming back.
  keeper = keeperOf(options, daemon, kept)
  await keeper?.start()
  const api = await listen(options, { daemon, keeper, kept }, () => end.resolve({ kind: 'exit' }))
  // Compiled code is kept for the next start; the process will not end in the way that would do it by itself.
  setTimeout(flushCompileCache, KEEP_CODE_MS).unref()
  for (const ms of RELEASE_MS) releaseWhenIdle(ms)
  const doing = daemon.state === 'INIT' ? 'waiting for a takeover of' : 'serving at'
  log.info(`${doing} ${daemon.options.at}${options.apiSocket === undefined ? '' : `, API at ${options.apiSocket}`}`)
  const why = await end.promise
  clearTimeout(giveUpStart)
  return await finish(why, { daemon, api, keeper, log })
}

type End =
  | { readonly kind: 'stop'; readonly why: string }
  | { readonly kind: 'exit' }
  | { readonly kind: 'failure'; readonly error: unknown }

function keeperOf({ keeper, supervisor }: RunOptions, daemon: Daemon, kept: Kept | undefined): Keeper | undefined {
  const { device } = daemon
  if (!keeper || !keepersAreOn() || supervisor !== undefined || device === undefined) return undefined
  const parts = { state: () => daemon.stateNow(), log: daemon.options.log }
  return new Keeper({ device, kept, ...parts })
}

async function start(
  options: RunOptions,
  kept: Kept | undefined,
  told: Pick<DaemonOptions, 'log' | 'onChange' | 'onEnd'>,
): Promise<Daemon> {
  const { log } = told
  const { id, supervisor, failover, threads, writable, apiSocket } = options
  const share =
    options.share === undefined
      ? undefined
      : { path: options.share.virtualMountPoint, directory: options.share.directory }
  const dedup = openDedup(options.dedupDb, kept, log)
  const common = { id, supervisor, failover, threads, writable, dedup, ...told }
  const waiting = { initial: undefined, share }
  if (kept !== undefined)
    return await resumeDaemon(kept, { ...common, ...waiting, at: await mountPointName(options.mountPoint) })
  if (apiSocket !== undefined) {
    await checkSocket(apiSocket)
    if (options.upgrade || (supervisor !== undefined && (await hasCrashed(options.mountPoint, apiSocket)))) {
      if (!options.upgrade) log.warn('A previous daemon crashed! Try to failover later.')
      return Daemon.waiting({ ...common, ...waiting, at: await mountPointName(options.mountPoint) })
    }
  }
  const [at, initial] = await Promise.all([prepareMountPoint(options.mountPoint, log), initialMount(options)])
  return await Daemon.start({ ...common, at, initial, share })
}

/** Throws CacheError, but in a daemon that is brought back: its readers wait, and can do without. */
function openDedup(path: string | undefined, kept: Kept | undefined, log: Log): ChunkDedup | undefined {
  if (path === undefined) return undefined
  try {
    return ChunkDedup.open(path)
  } catch (error) {
    if (kept === undefined) throw error
    log.error(`there is no deduplication from now on, and reads go on: ${messageOf(error)}`)
    return undefined
  }
}

/** A mount and a socket that nobody answers: their daemon was killed, and its supervisor has what is needed to go on. */
async function hasCrashed(mountPoint: string, apiSocket: string): Promise<boolean> {
  if (!existsSync(apiSocket) || (await isAnswered(apiSocket))) return false
  return await isMounted(await mountPointName(mountPoint))
}

interface Started {
  readonly daemon: Daemon
  readonly keeper: Keeper | undefined
  readonly kept: Kept | undefined
}

async function listen(
  options: RunOptions,
  { daemon, keeper, kept }: Started,
  onExit: () => void,
): Promise<ApiServer | undefined> {
  if (options.apiSocket === undefined) return undefined
  try {
    if (kept !== undefined) await checkSocket(options.apiSocket)
    // Whoever unmounted it meanwhile may be starting another daemon, which gets the socket.
    if (kept !== undefined && !daemon.isMounted) return undefined
    return await ApiServer.listen({ socketPath: options.apiSocket, daemon, routes: ROUTES, onExit })
  } catch (error) {
    if (kept !== undefined) {
      daemon.options.log.error(`there is no API from now on, and reads go on: ${messageOf(error)}`)
      return undefined
    }
    keeper?.end()
    await daemon.stop()
    throw error
  }
}

interface Running {
  readonly daemon: Daemon
  readonly api: ApiServer | undefined
  readonly keeper: Keeper | undefined
  readonly log: Log
}

/** Whatever happens here, the process ends, and no mount of ours stays but after `exit`. */
async function finish(end: End, { daemon, api, keeper, log }: Running): Promise<never> {
  if (end.kind === 'failure' && keeper?.isThere === true) {
    log.error(`nydusd fails, and its keeper starts another: ${messageOf(end.error)}`)
    return exitNow(1)
  }
  keeper?.end()
  // a second signal, or an end that takes too long
  const giveUp = (): never => {
    daemon.detachNow()
    return exitNow(1)
  }
  process.on('SIGINT', giveUp).on('SIGTERM', giveUp)
  setTimeout(giveUp, STOP_DEADLINE_MS)
  try {
    if (end.kind === 'failure') log.error(`nydusd fails: ${messageOf(end.error)}`)
    else log.info(end.kind === 'exit' ? 'the API asks to exit; the mount stays' : `nydusd stops: ${end.why}`)
    await api?.close()
    if (end.kind === 'exit') await daemon.exit()
    else await daemon.stop()
    log.info('nydusd quits')
    return exitNow(end.kind === 'failure' ? 1 : 0)
  } catch (error) {
    log.error(`nydusd did not end in order: ${messageOf(error)}`)
    return giveUp()
  }
}

export function openLog({ log }: Pick<RunOptions, 'log'>): Log {
  try {
    return new Log({
      level: log.level,
      file: log.file,
      rotationBytes: log.rotationMib * 1024 * 1024,
      filter: log.filter,
    })
  } catch (error) {
    throw new DaemonError('BAD_CONFIG', `cannot write --log-file: ${messageOf(error)}`, { cause: error })
  }
}

export function limitFiles(wanted: number, log: Log): void {
  if (wanted === 0) return
  const got = raiseFileLimit(wanted)
  if (got < wanted) log.debug(`the limit of open files is ${got}, not ${wanted}: the process may not raise it`)
}

export async function initialMount({ image }: Pick<RunOptions, 'image'>): Promise<InitialMount | undefined> {
  if (image === undefined) return undefined
  const prefetchFiles = image.prefetchFiles === undefined ? [] : await readPaths(image.prefetchFiles)
  const document =
    'file' in image.config ? await readText(image.config.file, '--config') : localfsDocument(image.config.localfsDir)
  return {
    path: image.virtualMountPoint,
    source: image.bootstrap,
    document,
    prefetchFiles,
    auth: process.env['IMAGE_PULL_AUTH'],
  }
}

/** What `--localfs-dir` stands for. */
export function localfsDocument(directory: string): string {
  return JSON.stringify({
    device: {
      backend: { type: 'localfs', config: { dir: directory } },
      cache: { type: 'blobcache', config: { work_dir: directory } },
    },
    mode: 'direct',
    enable_xattr: true,
  })
}

export async function readText(path: string, flag: string): Promise<string> {
  const pieces: Buffer[] = []
  let bytes = 0
  try {
    for await (const piece of createReadStream(path) as AsyncIterable<Buffer>) {
      bytes += piece.length
      if (bytes > MAX_TEXT_BYTES) throw new Error(`${path} has more than ${MAX_TEXT_BYTES} bytes`)
      pieces.push(piece)
    }
  } catch (error) {
    throw new DaemonError('BAD_CONFIG', `cannot read ${flag}: ${messageOf(error)}`, { cause: error })
  }
  return Buffer.concat(pieces).toString('utf8')
}

async function readPaths(path: string): Promise<string[]> {
  const text =
    path === '-' ? await readText('/dev/stdin', '--prefetch-files') : await readText(path, '--prefetch-files')
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
}
