/** How a container starts from a Nydus image: manifest, config and bootstrap are fetched, nydusd mounts, overlayfs on top makes it writable. */
import { createWriteStream } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import {
  anonymous,
  type Descriptor,
  type ImageConfig,
  parseImageConfig,
  parseReference,
  RegistryClient,
  type Repository,
  referenceTarget,
} from '../src/registry/index.ts'
import { TarReader } from '../src/tar/index.ts'
import { type RunningDaemon, startDaemon } from './daemon.ts'
import type { Undo } from './undo.ts'
import { mountWritable } from './writable.ts'

export interface LazyWanted {
  readonly nydusd: string
  readonly daemonArguments: readonly string[]
  /** `127.0.0.1:5000/demo/app:nydus`, plain HTTP. */
  readonly reference: string
  /** An empty folder. */
  readonly directory: string
  /** The whole image is fetched behind the reads. */
  readonly prefetch: boolean
  /** How far a miss may read on; undefined = as the daemon thinks best, 0 = only the chunks that were asked for. */
  readonly amplifyBytes?: number
  readonly undo: Undo
  readonly signal: AbortSignal
}

export interface LazyRoot {
  readonly root: string
  readonly config: ImageConfig
  readonly daemon: RunningDaemon
  /** Seconds from the call: until the bootstrap lay on disk, until the daemon answered (at the same time), until the root was there. */
  readonly timings: { readonly bootstrap: number; readonly daemon: number; readonly mounted: number }
}

const MAX_CONFIG_BYTES = 8 << 20
const BOOTSTRAP = 'image/image.boot'
const BOOTSTRAP_MARK = 'containerd.io/snapshot/nydus-bootstrap'

/** Leads to a root file system that can be run in. All that it made is told to `undo`, also when it throws. */
export async function startLazily(wanted: LazyWanted): Promise<LazyRoot> {
  const { directory, undo, signal } = wanted
  const from = performance.now()
  const seconds = (): number => (performance.now() - from) / 1000
  const [mountPoint, cache] = [join(directory, 'image'), join(directory, 'cache')]
  for (const folder of [mountPoint, cache]) await mkdir(folder, { recursive: true })
  const starting = startDaemon({
    nydusd: wanted.nydusd,
    arguments: wanted.daemonArguments,
    mountPoint,
    socket: join(directory, 'api.sock'),
    signal,
  }).then((daemon) => ({ daemon, daemonSeconds: seconds() }))
  undo.add('nydusd', async () => (await starting.catch(() => undefined))?.daemon.stop())
  const fetching = fetchMetadata(wanted.reference, directory, signal).then((image) => ({
    ...image,
    bootstrapSeconds: seconds(),
  }))
  const [{ daemon, daemonSeconds }, image] = await Promise.all([starting, fetching])
  await daemon.mount('/rafs', image.bootstrap, daemonConfig(wanted, cache))
  const root = await mountWritable([join(mountPoint, 'rafs')], join(directory, 'writable'), undo)
  const timings = { bootstrap: image.bootstrapSeconds, daemon: daemonSeconds, mounted: seconds() }
  return { root, config: image.config, daemon, timings }
}

function daemonConfig({ reference, prefetch, amplifyBytes }: LazyWanted, cache: string): object {
  const { host, repository } = parseReference(reference)
  return {
    device: {
      backend: { type: 'registry', config: { scheme: 'http', host, repo: repository } },
      cache: { type: 'blobcache', config: { work_dir: cache } },
    },
    mode: 'direct',
    digest_validate: false,
    iostats_files: false,
    enable_xattr: true,
    ...(amplifyBytes === undefined ? {} : { amplify_io: amplifyBytes }),
    fs_prefetch: { enable: prefetch, threads_count: 4, prefetch_all: prefetch },
  }
}

async function fetchMetadata(
  reference: string,
  directory: string,
  signal: AbortSignal,
): Promise<{ bootstrap: string; config: ImageConfig }> {
  const client = new RegistryClient({ credentials: anonymous(), plainHttp: 'always' })
  try {
    const repository = client.repository(parseReference(reference))
    const { parsed } = await repository.manifest(referenceTarget(repository.reference), { signal })
    const layer = parsed.kind === 'image' ? parsed.image.layers.at(-1) : undefined
    if (parsed.kind !== 'image' || layer?.annotations?.[BOOTSTRAP_MARK] === undefined)
      throw new Error(`${reference} is no Nydus image: its last layer is no bootstrap`)
    const bootstrap = join(directory, 'image.boot')
    const [config] = await Promise.all([
      repository.blob(parsed.image.config.digest, MAX_CONFIG_BYTES, { signal }),
      fetchBootstrap(repository, layer, bootstrap, signal),
    ])
    return { bootstrap, config: parseImageConfig(config) }
  } finally {
    await client.close()
  }
}

/** The bootstrap layer is a tar, gzipped; its digest is verified by the stream's end. */
async function fetchBootstrap(
  repository: Repository,
  layer: Descriptor,
  to: string,
  signal: AbortSignal,
): Promise<void> {
  await writeFile(to, '')
  let found = false
  const unpack = async (tar: AsyncIterable<Uint8Array>): Promise<void> => {
    const reader = new TarReader(tar)
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      if (entry.type !== 'file' || Buffer.from(entry.path).toString() !== BOOTSTRAP) continue
      await pipeline(contentOf(reader), createWriteStream(to), { signal })
      found = true
    }
  }
  const stream = Readable.from(repository.blobStream(layer.digest, { size: layer.size, signal }))
  await pipeline(stream, createGunzip(), unpack, { signal })
  if (!found) throw new Error(`the bootstrap layer ${layer.digest} has no ${BOOTSTRAP}`)
}

async function* contentOf(reader: TarReader): AsyncGenerator<Uint8Array> {
  for (;;) {
    const piece = Buffer.allocUnsafe(256 * 1024)
    const got = await reader.read(piece)
    if (got === 0) return
    yield piece.subarray(0, got)
  }
}
