import { detachNow, exitNow, fuseConnection, isFuseOver } from '../../kernel/index.ts'
import { isDead } from '../dead-mount.ts'
import { Daemon } from '../daemon.ts'
import type { DaemonOptions } from '../daemon-options.ts'
import { messageOf } from '../errors.ts'
import { decodeState } from '../handover/session-state.ts'
import { isMounted } from '../mount-point.ts'
import { type Kept, MOST_STARTS } from './keeper.ts'

/** So often all images must open; afterwards those that do not are left out. */
const STRICT_STARTS = 2

/** Goes on in the place of a daemon that died. Does not return when that cannot be: the process ends, with 0 when nobody needs to try again. */
export async function resumeDaemon(kept: Kept, options: DaemonOptions): Promise<Daemon> {
  const { at, log } = options
  const left = kept.file.takeRestart()
  log.warn(`the daemon before died; its keeper started this one (try ${kept.starts} of ${MOST_STARTS})`)
  const connection = connectionOf(kept)
  const isOver = isFuseOver(kept.device)
  if (isOver || !(await isMounted(at, connection))) {
    if (isOver && (await isMounted(at, connection)) && (await isDead(at))) detachNow(at) // somebody aborted it
    log.info(`${at} was unmounted or aborted meanwhile: there is nothing to go on with`)
    exitNow(0)
  }
  const daemon = Daemon.waiting(options)
  try {
    if (left < 0) throw new Error('daemons died too often')
    await daemon.restore({ state: kept.file.read(), device: kept.device }, (path, error) => {
      if (kept.starts <= STRICT_STARTS) throw error
      log.error(`cannot open ${path} again, which is not served from now on: ${messageOf(error)}`)
    })
    await daemon.serve()
    return daemon
  } catch (error) {
    log.error(`cannot go on with ${at}: ${messageOf(error)}`)
    if (left >= 0 && kept.starts < MOST_STARTS) return exitNow(1)
    log.error(`${at} is given up and detached; its users see errors from now on`)
    if (await isMounted(at, connection)) detachNow(at)
    return exitNow(0)
  }
}

/** Which session it is; another daemon may have mounted at the same place since. Undefined when neither the kernel nor the state tells. */
function connectionOf({ device, file }: Kept): bigint | undefined {
  const told = fuseConnection(device)
  if (told !== undefined) return BigInt(told)
  try {
    return decodeState(file.read()).connection
  } catch {
    return undefined // told when it is restored
  }
}
