import { exitNow } from '../../kernel/index.ts'
import { Daemon, type DaemonOptions } from '../daemon.ts'
import { messageOf } from '../errors.ts'
import { isMounted } from '../mount-point.ts'
import { type Kept, MOST_STARTS } from './keeper.ts'

/** So often all images must open; afterwards those that do not are left out. */
const STRICT_STARTS = 2

/** Goes on in the place of a daemon that died. Does not return when that cannot be: the process ends, with 0 when nobody needs to try again. */
export async function resumeDaemon(kept: Kept, options: DaemonOptions): Promise<Daemon> {
  const { at, log } = options
  const left = kept.file.takeRestart()
  log.warn(`the daemon before died; its keeper started this one (try ${kept.starts} of ${MOST_STARTS})`)
  if (!(await isMounted(at))) {
    log.info(`${at} was unmounted meanwhile: there is nothing to go on with`)
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
    daemon.detachNow()
    return exitNow(0)
  }
}
