/** What is done about a daemon that is gone, whether it died a moment ago or while nobody looked. Source: docs/containerd-nydus-grpc.md, "When a nydusd dies". */
import { isFuseOver } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Nydusd } from './daemon.ts'
import { messageOf } from './message.ts'
import { tellLogins } from './relogin.ts'
import { sessionPath } from './places.ts'
import { processesServing } from './processes.ts'
import type { Session } from './supervisor.ts'

const TAKEOVER_TRIES = 3
const POLL_MS = 20

/**
 * Brings a daemon back: by its own keeper where it has one, else by a successor that goes on with the session (failover), else by a new session, on which
 * containers that start from now on can be built. `by policy` does what the configuration says; `anyway` is for somebody who needs the daemon now. Throws
 * SnapshotterError 'anyway' only.
 */
export async function recover(daemon: Nydusd, how: 'by policy' | 'anyway'): Promise<void> {
  const { log, settings } = daemon.parts
  const { recoverPolicy, startupTimeoutMs } = settings.daemon
  try {
    if (daemon.isNew) return await daemon.startFresh()
    if (await cameBack(daemon, startupTimeoutMs)) {
      log.info(`nydusd ${daemon.id} was brought back by its keeper`)
      return await tellLogins(daemon)
    }
    const session = await daemon.sessions.find()
    if (session !== undefined && !isFuseOver(session.device) && (await goesOn(daemon, session))) return
    if (recoverPolicy === 'none' && how === 'by policy')
      return log.warn(`nydusd ${daemon.id} stays dead (recover_policy)`)
    await daemon.startFresh()
    await remount(daemon)
  } catch (error) {
    daemon.state = 'dead'
    daemon.lastError = error
    if (how === 'anyway') throw error
    log.error(`nydusd ${daemon.id} cannot be brought back: ${messageOf(error)}`)
  }
}

/** A daemon of ours has a keeper when it has no supervisor: whoever has the socket on its command line is it, or its successor. */
async function cameBack(daemon: Nydusd, timeoutMs: number): Promise<boolean> {
  const { APISocket } = daemon.record
  const deadline = performance.now() + timeoutMs
  while (performance.now() < deadline && (await processesServing(APISocket)).length > 0) {
    try {
      if ((await daemon.api.info()).state === 'RUNNING') {
        await daemon.attach()
        break
      }
    } catch {
      // not yet
    }
    await sleep(POLL_MS)
  }
  if (daemon.state !== 'running') return false
  await reconcile(daemon)
  return true
}

/** A successor takes the session over, whose users only wait. False when none could. */
async function goesOn(daemon: Nydusd, session: Session): Promise<boolean> {
  const { log, settings } = daemon.parts
  for (let tries = 1; tries <= TAKEOVER_TRIES; tries++) {
    const launched = await daemon.launch(settings.daemon.nydusdPath, true)
    try {
      await launched.waitFor(['INIT'], settings.daemon.startupTimeoutMs)
      await daemon.sessions.offer(session, daemon.api)
      await daemon.api.start()
      await launched.waitFor(['RUNNING'], settings.daemon.startupTimeoutMs)
      await daemon.attach()
    } catch (error) {
      await daemon.abandon(launched)
      log.error(`nydusd ${daemon.id} is not taken over (try ${tries} of ${TAKEOVER_TRIES}): ${messageOf(error)}`)
      if (isFuseOver(session.device)) return false
      continue
    }
    await reconcile(daemon)
    await tellLogins(daemon)
    return true
  }
  return false
}

/** Makes what a daemon serves what it is to serve: a state may be older than the last mount. Never throws: a daemon that dies meanwhile comes back by itself. */
export async function reconcile(daemon: Nydusd): Promise<void> {
  const { log } = daemon.parts
  try {
    const { mounted } = await daemon.api.info()
    const images = [...daemon.images.values()]
    const wanted = new Map(images.map((image) => [sessionPath(daemon.record, image.record.SnapshotID), image]))
    for (const [at, image] of wanted) image.isMounted = mounted.includes(at)
    if (!daemon.isShared) return
    for (const at of mounted) if (!wanted.has(at)) await daemon.api.unmount(at)
    await remount(daemon)
  } catch (error) {
    log.warn(`nydusd ${daemon.id} was not asked what it serves: ${messageOf(error)}`)
  }
}

/** Images of a shared daemon that are not mounted, in the order of their first mounts. One that fails hinders no other: who needs it tries again. */
export async function remount(daemon: Nydusd): Promise<void> {
  const missing = [...daemon.images.values()].filter(({ isMounted }) => !isMounted)
  for (const image of missing)
    try {
      if (daemon.state !== 'running') throw new SnapshotterError('UNAVAILABLE', `nydusd ${daemon.id} died again`)
      await daemon.mountNow(image)
    } catch (error) {
      daemon.parts.log.error(`${image.record.ImageID} is not mounted again: ${messageOf(error)}`)
    }
  if (missing.length > 0) await daemon.sessions.save()
}
