import { refusal } from '../api/answer.ts'
import { type Route, ROUTES } from '../api/routes.ts'
import { Daemon } from '../daemon.ts'
import { initialMount, type RunOptions } from '../run.ts'
import { runService, type ServiceOptions } from './run-service.ts'
import { VirtioFsSession } from './virtiofs-session.ts'

export interface VirtioFsRunOptions extends ServiceOptions {
  readonly socketPath: string
  readonly image: RunOptions['image']
}

/** Those of the FUSE daemon, but that sessions do not change hands. */
const VIRTIOFS_ROUTES: readonly Route[] = ROUTES.map((route) =>
  route.path.startsWith('/api/v1/daemon/fuse/')
    ? { ...route, handle: () => refusal(501, `${route.wrapper}(DaemonAbnormal(Unsupported))`) }
    : route,
)

/** `nydusd virtiofs`: images as a file system of a virtual machine (vhost-user). As `runService`. */
export async function runVirtioFs(options: VirtioFsRunOptions): Promise<never> {
  const { socketPath: at, id, supervisor } = options
  return await runService(options, {
    at,
    routes: VIRTIOFS_ROUTES,
    start: async (log, onEnd) => {
      const initial = await initialMount(options)
      return await Daemon.start({
        at,
        id,
        supervisor,
        threads: 1,
        openSession: (of) => new VirtioFsSession(of),
        initial,
        share: undefined,
        writable: false,
        failover: 'none',
        log,
        onEnd: (why) => onEnd(why === 'unmounted' ? 'the session is over' : why),
      })
    },
  })
}
