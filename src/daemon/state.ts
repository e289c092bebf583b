import { DaemonError } from './errors.ts'

/** What the API shows. */
export type DaemonState = 'INIT' | 'READY' | 'RUNNING' | 'STOPPED'
/** What can happen to a daemon, by upstream's names, which its clients read in answers. */
export type DaemonEvent = 'Mount' | 'Takeover' | 'Start' | 'Stop' | 'Exit'

/**
 * Every change of state. `Mount`: the session is mounted, nobody serves it. `Start`: threads serve. `Stop` from RUNNING: they have left, the mount is still
 * there; from READY: unmounted. `Exit`: over without an unmount.
 */
const TABLE: Readonly<Record<DaemonState, Partial<Record<DaemonEvent, DaemonState>>>> = {
  INIT: { Mount: 'READY', Takeover: 'READY', Stop: 'STOPPED' },
  READY: { Start: 'RUNNING', Stop: 'STOPPED', Exit: 'STOPPED' },
  RUNNING: { Stop: 'READY' },
  STOPPED: {},
}

/** Where an event leads. Throws DaemonError 'BAD_STATE'. */
export function nextState(state: DaemonState, event: DaemonEvent): DaemonState {
  const next = TABLE[state][event]
  if (next === undefined)
    throw new DaemonError('BAD_STATE', `a daemon in state ${state} cannot ${event.toLowerCase()}`, {
      wire: `DaemonAbnormal(UnexpectedEvent("${event}"))`,
    })
  return next
}
