import { DaemonApi } from './api-client.ts'
import type { Nydusd } from './daemon.ts'
import { messageOf } from './message.ts'
import { socketsOf } from './places.ts'
import { reconcile, recover } from './recover.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** A busy daemon on a busy machine is slow, and not dead. */
const ANSWER_MS = 15_000
/** What is to be found first: one that serves; one that was about to. */
const STATES = ['RUNNING', 'READY', 'INIT'] as const

/**
 * Takes up a daemon that an earlier snapshotter left: it serves still, or a takeover stopped half-way, or it is dead. Leaves what serves as it is: same process,
 * same session. Never throws; the daemon's state tells.
 */
export async function adopt(daemon: Nydusd): Promise<void> {
  const { log } = daemon.parts
  try {
    const { found, isServing } = await findServing(daemon)
    // Without a supervisor it has a keeper, which may be about to bring it back, with the session that containers stand on: `recover` waits for that.
    const mayComeBack = found === undefined && daemon.record.SupervisorPath === ''
    for (const socket of await socketsOf(daemon.record))
      if (!isServing.has(socket) && !(mayComeBack && socket === daemon.record.APISocket)) await daemon.killAll(socket)
    if (found !== undefined) {
      daemon.record = { ...daemon.record, APISocket: found.socket }
      if (await serves(daemon, found.state)) {
        await daemon.attach()
        await reconcile(daemon)
        return
      }
      await daemon.killAll(found.socket)
    }
  } catch (error) {
    log.warn(`nydusd ${daemon.id} is not as it was left: ${messageOf(error)}`)
  }
  daemon.state = 'dead'
  await recover(daemon, 'by policy')
}

interface Serving {
  readonly socket: string
  readonly state: (typeof STATES)[number]
}

/** The process to go on with, and all that are not to be ended: one whose mount was detached serves those who use it still. */
async function findServing(
  daemon: Nydusd,
): Promise<{ readonly found: Serving | undefined; readonly isServing: ReadonlySet<string> }> {
  const states = new Map<string, string>()
  const answerMs = Math.min(ANSWER_MS, Math.ceil(daemon.parts.settings.daemon.startupTimeoutMs / 2))
  for (const socket of await socketsOf(daemon.record))
    try {
      states.set(socket, (await new DaemonApi(socket).info(deadlineSignal(answerMs))).state)
    } catch {
      // nobody serves it: what is to be done about that is decided when all were asked
    }
  const running = [...states].flatMap(([socket, state]) => (state === 'RUNNING' ? [socket] : []))
  for (const state of STATES)
    for (const [socket, itsState] of states)
      if (itsState === state) return { found: { socket, state }, isServing: new Set([...running, socket]) }
  return { found: undefined, isServing: new Set() }
}

/** Ends what was begun: a daemon that has a session starts, one that waits for it gets it. */
async function serves(daemon: Nydusd, state: Serving['state']): Promise<boolean> {
  if (state === 'RUNNING') return true
  if (state === 'INIT') {
    const session = await daemon.sessions.find()
    if (session === undefined) return false
    await daemon.sessions.offer(session, daemon.api)
  }
  await daemon.api.start()
  return (await daemon.api.info()).state === 'RUNNING'
}
