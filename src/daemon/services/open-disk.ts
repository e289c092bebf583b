import { DecodePool } from '../../engine/index.ts'
import { parseConfig } from '../config/document.ts'
import type { Config } from '../config/schema.ts'
import { DaemonError } from '../errors.ts'
import { MountedImage } from '../image.ts'
import { FIXED_LOGIN } from '../live-login.ts'
import type { Log } from '../log.ts'
import { localfsDocument, readText } from '../run.ts'
import { ImageDisk } from './image-disk.ts'

/** An image, and where its blobs are. */
export interface DiskSource {
  /** Path of the bootstrap. */
  readonly bootstrap: string
  readonly config: Config
  /** Who reads the disk keeps what it reads: there is no cache beside that, and nothing is fetched ahead. */
  readonly isKeptElsewhere?: boolean
}

/** An open disk; the one who opened it closes it. */
export interface OpenDisk {
  readonly disk: ImageDisk
  /** The bytes of its bootstrap. */
  readonly bootstrap: Uint8Array
  readonly close: () => Promise<void>
}

/** `rafs` of a document that need not describe a file system. */
const NO_RAFS = { version: 2, rafs: {} }

/** Of `--bootstrap` and `--config` or `--localfs-dir`. Throws DaemonError. */
export async function sourceOf(
  bootstrap: string,
  from: { readonly file: string } | { readonly localfsDir: string },
  log: Log,
): Promise<DiskSource> {
  if ('localfsDir' in from)
    return { bootstrap, config: parseConfig(localfsDocument(from.localfsDir), 'of --localfs-dir').config }
  const { config, unknownKeys } = parseConfig(await readText(from.file, '--config'), from.file)
  if (unknownKeys.length > 0)
    log.warn(`configuration ${from.file}: unknown keys, without effect: ${unknownKeys.join(', ')}`)
  return { bootstrap, config: complete(withAuth(config)) }
}

/** Throws DaemonError; then nothing is open. */
export async function openDisk({ bootstrap, config, isKeptElsewhere = false }: DiskSource): Promise<OpenDisk> {
  const decoders = new DecodePool()
  try {
    const image = await MountedImage.open(
      { source: bootstrap, config, isKeptElsewhere, prefetchFiles: [], login: FIXED_LOGIN, threads: 0 },
      decoders,
    )
    try {
      const disk = new ImageDisk(image)
      if (!isKeptElsewhere) image.prefetch()
      return {
        disk,
        bootstrap: image.loaded.bytes,
        close: async () => {
          disk.close()
          await image.close()
          await decoders.close()
        },
      }
    } catch (error) {
      await image.close()
      throw error
    }
  } catch (error) {
    await decoders.close()
    throw error
  }
}

/** A document that says nothing of a file system gets what a mount would have by itself. */
export function complete(config: Config): Config {
  if (config.cache === null)
    throw new DaemonError('BAD_CONFIG', 'the configuration has no "cache", which a disk needs; add it')
  if (config.rafs !== null) return config
  const { rafs } = parseConfig(JSON.stringify(NO_RAFS), 'of a disk').config
  return { ...config, rafs: rafs === null ? null : { ...rafs, prefetch: config.cache.prefetch } }
}

function withAuth(config: Config): Config {
  const auth = process.env['IMAGE_PULL_AUTH']
  const { backend } = config
  if (auth === undefined || backend === null || backend.registry === null) return config
  return { ...config, backend: { ...backend, registry: { ...backend.registry, auth } } }
}
