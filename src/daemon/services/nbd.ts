import { NbdDevice, UnixStream, whyNoNbd } from '../../kernel/vm/index.ts'
import { parse as parseToml } from 'smol-toml'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { readText } from '../run.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { NbdConnection } from './nbd-connection.ts'
import { complete, type DiskSource, openDisk, sourceOf } from './open-disk.ts'
import { runService, type ServiceOptions } from './run-service.ts'
import { ServiceDaemon } from './service-daemon.ts'
import { NO_BLOBS, SERVICE_ROUTES } from './service-routes.ts'

export interface NbdRunOptions extends ServiceOptions {
  /** Like `/dev/nbd0`. */
  readonly device: string
  /** Connections to the driver. */
  readonly threads: number
  /** An image and the folder for both blobs and cache, or a file with a blob cache entry. */
  readonly from: { readonly bootstrap: string; readonly localfsDir: string } | { readonly file: string }
}

/** `nydusd nbd`: an image as a block device of the kernel. As `runService`. */
export async function runNbd(options: NbdRunOptions): Promise<never> {
  const { device: path, id, supervisor } = options
  return await runService(options, {
    at: path,
    routes: [...SERVICE_ROUTES, ...NO_BLOBS],
    start: async (log, onEnd) => {
      const why = whyNoNbd(path)
      if (why !== undefined) throw new DaemonError('UNSUPPORTED', `cannot serve a network block device: ${why}`)
      const { disk, close } = await openDisk(await diskSource(options.from, log))
      try {
        const device = new NbdDevice(path, { blockSize: disk.blockSize, blocks: disk.size / disk.blockSize })
        const connections = Array.from({ length: options.threads }, () => {
          const end = new UnixStream(device.connect())
          return new NbdConnection(end, {
            disk,
            onError: (text) => log.error(`${path}: ${text}`),
            onEnd: () => undefined,
          })
        })
        device.serve().then(
          () => onEnd(`${path} was disconnected`),
          (error: unknown) => onEnd(new DaemonError('IO', messageOf(error), { cause: error })),
        )
        return new ServiceDaemon({ id, supervisor, log }, async () => {
          device.close()
          for (const connection of connections) connection.close()
          await close()
        })
      } catch (error) {
        await close()
        throw new DaemonError('IO', `${messageOf(error)}; give a network block device that nobody uses`, {
          cause: error,
        })
      }
    },
  })
}

async function diskSource(from: NbdRunOptions['from'], log: Log): Promise<DiskSource> {
  if ('bootstrap' in from) return await sourceOf(from.bootstrap, from, log)
  const document = await readText(from.file, '--config')
  const refuse = (what: string): DaemonError =>
    new DaemonError(
      'BAD_CONFIG',
      `cannot use ${from.file}: ${what}; it must be a blob cache entry with type, id and config`,
    )
  let value: unknown
  try {
    value = document.trimStart().startsWith('{') ? JSON.parse(document) : parseToml(document)
  } catch (error) {
    throw refuse(messageOf(error))
  }
  const entry = parseEntry(value, refuse)
  if (entry.type !== 'bootstrap' || entry.metadataPath === '') throw refuse('it names no bootstrap in "metadata_path"')
  return { bootstrap: entry.metadataPath, config: complete(entry.config) }
}

function parseEntry(value: unknown, refuse: (what: string) => DaemonError): ReturnType<typeof parseBlobEntry> {
  try {
    return parseBlobEntry(value)
  } catch (error) {
    throw refuse(messageOf(error))
  }
}
