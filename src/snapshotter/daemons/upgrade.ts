import { execFile } from 'node:child_process'
import { rmSync } from 'node:fs'
import { link, lstat, realpath, rename, rm, symlink } from 'node:fs/promises'
import { promisify } from 'node:util'
import { SnapshotterError } from '../errors.ts'
import type { DaemonParts, Nydusd } from './daemon.ts'
import type { Launched } from './launch.ts'
import { messageOf } from './message.ts'
import { tellLogins } from './relogin.ts'
import { nextSocket } from './places.ts'
import { servesSocket, waitUntil } from './processes.ts'
import { reconcile, recover } from './recover.ts'
import type { Session } from './supervisor.ts'

const VERSION_MS = 15_000
const EXIT_MS = 15_000

/** The commit that a program was built from, as `nydusd --version` says; '' when it does not. Throws SnapshotterError 'BAD_CONFIG' when it is no nydusd. */
export async function commitOf(program: string): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: VERSION_MS, killSignal: 'SIGKILL' })
    return /Git Commit:[ \t]*(\S+)/.exec(stdout)?.[1] ?? ''
  } catch (error) {
    throw new SnapshotterError('BAD_CONFIG', `${program} is no nydusd that runs here: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

/**
 * Another program takes over the session of a daemon that serves; its users notice nothing. When that fails, the old daemon goes on. Throws SnapshotterError.
 */
async function upgrade(daemon: Nydusd, program: string): Promise<void> {
  await daemon.turns.take(async () => {
    const { record: old } = daemon
    if (old.SupervisorPath === '')
      throw new SnapshotterError(
        'FAILED_PRECONDITION',
        `nydusd ${daemon.id} has no supervisor, and cannot be replaced while it serves; set recover_policy = "failover", and start the snapshotter again`,
      )
    if (daemon.state !== 'running') throw new SnapshotterError('UNAVAILABLE', `nydusd ${daemon.id} does not serve now`)
    if (!(await daemon.quiet()))
      throw new SnapshotterError('UNAVAILABLE', `nydusd ${daemon.id} is busy with mounts; try again`)
    await daemon.sessions.save()
    const oldApi = daemon.api
    daemon.record = { ...old, APISocket: nextSocket(old.APISocket) }
    let launched: Launched | undefined
    try {
      const session = savedSession(daemon)
      launched = await daemon.launch(program, true)
      await takeOver(daemon, launched, session)
    } catch (error) {
      await daemon.abandon(launched)
      rmSync(daemon.record.APISocket, { force: true })
      daemon.record = old
      throw new SnapshotterError(
        'INTERNAL',
        `nydusd ${daemon.id} is not upgraded, and the old one goes on: ${messageOf(error)}`,
        { cause: error },
      )
    }
    daemon.unwatch()
    try {
      await oldApi.exit().catch(() => undefined) // it may be gone before it has answered
      if (!(await waitUntil(() => !servesSocket(old.ProcessID, old.APISocket), EXIT_MS)))
        await daemon.killAll(old.APISocket)
      rmSync(old.APISocket, { force: true })
      await daemon.api.start()
      await daemon.attach()
      await reconcile(daemon)
      await tellLogins(daemon)
    } catch (error) {
      daemon.parts.log.error(`nydusd ${daemon.id} dies in its upgrade: ${messageOf(error)}`)
      daemon.state = 'dead'
      await daemon.killAll(daemon.record.APISocket)
      await recover(daemon, 'anyway')
    }
  })
}

/** Another program for all daemons, and for starts to come where it is installed by its path. The first failure ends it. Throws SnapshotterError. */
export async function upgradeAll(daemons: readonly Nydusd[], program: string, installed: string): Promise<void> {
  await commitOf(program)
  for (const daemon of daemons) await upgrade(daemon, program)
  if (installed.includes('/')) await replaceProgram(installed, program)
}

/** Daemons of another version than the program that is installed now, where a supervisor makes it possible. Never throws. */
export async function upgradeOutdated(daemons: readonly Nydusd[], { settings, log }: DaemonParts): Promise<void> {
  const { nydusdPath, recoverPolicy } = settings.daemon
  if (recoverPolicy !== 'failover') return
  try {
    const commit = await commitOf(nydusdPath)
    for (const daemon of daemons) {
      const { state, record, version } = daemon
      if (state !== 'running' || record.SupervisorPath === '' || commit === '' || version.gitCommit === commit) continue
      log.info(`nydusd ${daemon.id} is replaced by the version that is installed`)
      await upgrade(daemon, nydusdPath)
    }
  } catch (error) {
    log.error(messageOf(error))
  }
}

/** Up to the point from which on the new daemon has the session. */
async function takeOver(daemon: Nydusd, launched: Launched, session: Session): Promise<void> {
  const timeoutMs = daemon.parts.settings.daemon.startupTimeoutMs
  await launched.waitFor(['INIT'], timeoutMs)
  await daemon.sessions.offer(session, daemon.api)
  await launched.waitFor(['READY'], timeoutMs)
}

function savedSession({ sessions: { session } }: Nydusd): Session {
  if (session === undefined) throw new SnapshotterError('UNAVAILABLE', 'its state could not be saved')
  return session
}

/** Makes a path lead to another program, for all starts that follow. A program that was there stays beside it as `<path>.old`. */
async function replaceProgram(path: string, program: string): Promise<void> {
  if (path === program || (await realpath(path).catch(() => path)) === (await realpath(program))) return
  const temporary = `${path}.${process.pid}.new`
  try {
    if (await isFile(path)) {
      await rm(`${path}.old`, { force: true })
      await link(path, `${path}.old`)
    }
    await symlink(program, temporary)
    await rename(temporary, path)
  } finally {
    await rm(temporary, { force: true })
  }
}

async function isFile(path: string): Promise<boolean> {
  return await lstat(path).then(
    (found) => found.isFile(),
    () => false,
  )
}
