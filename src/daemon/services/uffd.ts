import { DaemonError, messageOf } from '../errors.ts'
import { openDisk, sourceOf } from './open-disk.ts'
import { runService, type ServiceOptions } from './run-service.ts'
import { ServiceDaemon } from './service-daemon.ts'
import { NO_BLOBS, SERVICE_ROUTES } from './service-routes.ts'
import { UffdServer } from './uffd-server.ts'

export interface UffdRunOptions extends ServiceOptions {
  readonly socketPath: string
  readonly bootstrap: string
  /** A configuration file, or the folder for both blobs and cache. */
  readonly config: { readonly file: string } | { readonly localfsDir: string }
}

/** `nydusd uffd`: an image as a disk in the memory of virtual machines. As `runService`. */
export async function runUffd(options: UffdRunOptions): Promise<never> {
  const { socketPath, id, supervisor } = options
  return await runService(options, {
    at: socketPath,
    routes: [...SERVICE_ROUTES, ...NO_BLOBS],
    start: async (log) => {
      const { disk, close } = await openDisk(await sourceOf(options.bootstrap, options.config, log))
      try {
        const server = new UffdServer({ socketPath, disk, log })
        return new ServiceDaemon({ id, supervisor, log }, async () => {
          server.close()
          await close()
        })
      } catch (error) {
        await close()
        throw new DaemonError('IO', `${messageOf(error)}; give another --sock`, { cause: error })
      }
    },
  })
}
