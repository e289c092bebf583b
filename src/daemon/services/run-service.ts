import { flushCompileCache } from 'node:module'
import { exitNow } from '../../kernel/index.ts'
import type { Route } from '../api/routes.ts'
import { ApiServer, checkSocket, type Served } from '../api/server.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { limitFiles, openLog, type RunOptions } from '../run.ts'
import { versionInfo } from '../version/index.ts'
import { releaseWhenIdle } from '../release-pages.ts'

/** What every service is told. */
export type ServiceOptions = Pick<RunOptions, 'apiSocket' | 'id' | 'supervisor' | 'fileLimit' | 'log'>

/** A service that runs. */
export interface Running extends Served {
  stop(): Promise<void>
}

export interface ServiceParts<D extends Running> {
  /** Resolves when the service answers; rejects when it cannot, and has left nothing then. `onEnd`: it ended by itself. */
  readonly start: (log: Log, onEnd: (why: string | Error) => void) => Promise<D>
  readonly routes: ReadonlyArray<Route<D>>
  /** For the log: where it serves; undefined = by its API only. */
  readonly at: string | undefined
}

const STOP_DEADLINE_MS = 4_500
const START_GRACE_MS = 2_000
const KEEP_CODE_MS = 2_000
const ALIVE_MS = 2 ** 30
const RELEASE_MS = [500, 2_500]

/** Runs a service until a signal, the API or a failure ends it; ends the process. Rejects only when it does not start. */
export async function runService<D extends Running>(options: ServiceOptions, parts: ServiceParts<D>): Promise<never> {
  const log = openLog(options)
  const end = Promise.withResolvers<string | Error>()
  let giveUpStart: NodeJS.Timeout | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    end.resolve(signal)
    giveUpStart ??= setTimeout(() => exitNow(1), START_GRACE_MS)
  }
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  // Whoever reads this line may send signals.
  const { package_ver: version, git_commit: commit, rustc: runtime } = versionInfo()
  log.info(`Program Version: ${version}, Git Commit: "${commit}", Runtime: "${runtime}"`)
  if (options.fileLimit !== 0) limitFiles(options.fileLimit, log)
  if (options.apiSocket !== undefined) await checkSocket(options.apiSocket)
  const daemon = await parts.start(log, end.resolve)
  process.on('uncaughtException', end.resolve).on('unhandledRejection', (error) => end.resolve(asError(error)))
  const api = await listen(options, daemon, parts.routes, () => end.resolve('the API asks to exit'))
  setTimeout(flushCompileCache, KEEP_CODE_MS).unref()
  for (const ms of RELEASE_MS) releaseWhenIdle(ms)
  setInterval(() => undefined, ALIVE_MS) // a service without any socket waits for signals
  log.info(placesOf(parts.at, options.apiSocket))
  const why = await end.promise
  clearTimeout(giveUpStart)
  return await finish(why, daemon, api, log)
}

function placesOf(at: string | undefined, apiSocket: string | undefined): string {
  if (at === undefined)
    return apiSocket === undefined ? 'serving nobody: there is no --apisock' : `serving at ${apiSocket}`
  return apiSocket === undefined ? `serving at ${at}` : `serving at ${at}, API at ${apiSocket}`
}

async function listen<D extends Running>(
  { apiSocket }: ServiceOptions,
  daemon: D,
  routes: ReadonlyArray<Route<D>>,
  onExit: () => void,
): Promise<ApiServer<D> | undefined> {
  if (apiSocket === undefined) return undefined
  try {
    return await ApiServer.listen({ socketPath: apiSocket, daemon, routes, onExit })
  } catch (error) {
    await daemon.stop()
    throw error
  }
}

async function finish<D extends Running>(
  why: string | Error,
  daemon: D,
  api: ApiServer<D> | undefined,
  log: Log,
): Promise<never> {
  const giveUp = (): never => exitNow(1)
  process.on('SIGINT', giveUp).on('SIGTERM', giveUp)
  setTimeout(giveUp, STOP_DEADLINE_MS)
  const failed = why instanceof Error
  if (failed) log.error(`nydusd fails: ${messageOf(why)}`)
  else log.info(`nydusd stops: ${why}`)
  try {
    await api?.close()
    await daemon.stop()
    log.info('nydusd quits')
    return exitNow(failed ? 1 : 0)
  } catch (error) {
    log.error(`nydusd did not end in order: ${messageOf(error)}`)
    return giveUp()
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}
