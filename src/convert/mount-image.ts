import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, realpath, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { basename, dirname, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { readMountInfo, unmount } from '../kernel/index.ts'
import { formatReference, type Platform, type Repository } from '../registry/index.ts'
import { fetchBootstrapLayer } from './bootstrap-layer.ts'
import { emptyOutputFolder } from './check/output-files.ts'
import { ConvertError } from './errors.ts'
import { goJson } from './go-json.ts'
import { type OpenedImage, openPair } from './source-image.ts'

export interface MountRequest {
  readonly target: Repository
  readonly platform: Platform
  /** Made if absent. */
  readonly mountPath: string
  /** Emptied first, removed afterwards; holds bootstrap, configuration, cache and socket. */
  readonly workDirectory: string
  /** The program. */
  readonly nydusd: string
  /** Where nydusd reads blobs: type and configuration, in its own form. */
  readonly storage: { readonly type: string; readonly config: unknown }
  /** The whole image is fetched in the background. */
  readonly prefetch: boolean
}

export interface MountWatch {
  /** The file system can be used. */
  onMounted(): void
}

/** nydusd starts within a fraction of a second; a machine under load gets this long. */
const READY_MS = 30_000
const POLL_MS = 20
const STOP_MS = 10_000

/**
 * Mounts a Nydus image with nydusd until `signal` is aborted, or nydusd ends. Leaves nothing: no mount, process or file; the mount point stays. Throws 'NO_IMAGE', 'MOUNT_FAILED', RegistryError.
 */
export async function mountImage(request: MountRequest, watch: MountWatch, signal: AbortSignal): Promise<void> {
  const { target, platform, workDirectory } = request
  const { nydus } = await openPair(target, platform, signal)
  if (nydus === undefined)
    throw new ConvertError(
      'NO_IMAGE',
      `${formatReference(target.reference)} is no Nydus image; convert it first: nydusify convert`,
    )
  await emptyOutputFolder(workDirectory)
  try {
    const places = await prepare(request, nydus, signal)
    await serve(request, places, watch, signal)
  } finally {
    await rm(workDirectory, { recursive: true, force: true })
  }
}

interface MountPlaces {
  readonly bootstrap: string
  readonly config: string
  readonly socket: string
}

/** Writes what nydusd wants, under the original's names. The configuration may hold a login: nobody else may read it. */
async function prepare(request: MountRequest, nydus: OpenedImage, signal: AbortSignal): Promise<MountPlaces> {
  const folder = resolve(request.workDirectory)
  const places = {
    bootstrap: join(folder, 'nydus_bootstrap'),
    config: join(folder, 'fs/nydusd_config.json'),
    socket: join(folder, 'fs/nydus_api.sock'),
  }
  const cache = join(folder, 'fs/nydus_blobs')
  await mkdir(cache, { recursive: true, mode: 0o750 })
  await mkdir(request.mountPath, { recursive: true, mode: 0o750 })
  if (nydus.bootstrap === undefined) throw new ConvertError('NO_IMAGE', `${nydus.descriptor.digest} has no bootstrap`)
  const { bootstrap } = await fetchBootstrapLayer(nydus.repository, nydus.bootstrap, signal)
  await writeFile(places.bootstrap, bootstrap)
  await writeFile(join(folder, 'nydus_manifest.json'), goJson('manifest', nydus.manifest, 'indented'))
  await writeFile(join(folder, 'nydus_config.json'), goJson('config', nydus.config, 'indented'))
  const config = {
    device: { backend: request.storage, cache: { type: 'blobcache', config: { work_dir: cache } } },
    mode: 'direct',
    iostats_files: false,
    fs_prefetch: { enable: request.prefetch, threads_count: 10, merging_size: 131_072 },
    digest_validate: false,
    enable_xattr: true,
  }
  await writeFile(places.config, JSON.stringify(config, undefined, 2), { mode: 0o600 })
  return places
}

async function serve(
  { nydusd, mountPath }: MountRequest,
  { bootstrap, config, socket }: MountPlaces,
  watch: MountWatch,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted()
  const args = [
    '--config',
    config,
    '--mountpoint',
    resolve(mountPath),
    '--bootstrap',
    bootstrap,
    '--apisock',
    socket,
    '--log-level',
    'warn',
  ]
  const before = await mountsAt(mountPath)
  const daemon = new Daemon(nydusd, args)
  try {
    await daemon.started(socket, signal)
    watch.onMounted()
    await daemon.ended(signal)
  } finally {
    await daemon.stop()
    // A nydusd that was killed leaves a dead mount.
    for (let left = (await mountsAt(mountPath)) - before; left > 0; left -= 1) await unmount(resolve(mountPath), true)
  }
}

async function mountsAt(path: string): Promise<number> {
  // Of the folder above: the mount point itself may be dead, and asking it would fail.
  const place = join(await realpath(dirname(resolve(path))), basename(path))
  return (await readMountInfo()).filter(({ at }) => at === place).length
}

/** A nydusd of ours. In a process group of its own, so that Ctrl-C reaches it through us, after we know of it. */
class Daemon {
  readonly #child: ChildProcess
  readonly #exit: Promise<string>
  #isRunning = true

  constructor(program: string, args: readonly string[]) {
    // we look after it ourselves: nobody shall bring back what we end
    const env = { ...process.env, NYDUSD_KEEPER: 'off' }
    this.#child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'], detached: true, env })
    this.#exit = new Promise((done) => {
      const end = (how: string): void => {
        this.#isRunning = false
        done(how)
      }
      this.#child.once('error', (error: NodeJS.ErrnoException) =>
        end(error.code === 'ENOENT' ? `${program} does not exist; name it with --nydusd` : error.message),
      )
      this.#child.once('exit', (code, name) =>
        end(name === null ? `it ended with exit code ${code}` : `it was ended by ${name}`),
      )
    })
  }

  /** Waits until it says that it is running. */
  async started(socket: string, signal: AbortSignal): Promise<void> {
    const deadline = performance.now() + READY_MS
    while (this.#isRunning) {
      signal.throwIfAborted()
      if ((await askState(socket)) === 'RUNNING') return
      if (performance.now() > deadline)
        throw new ConvertError(
          'MOUNT_FAILED',
          `nydusd did not mount the image within ${READY_MS / 1000} s; run it with --log-level debug to see why`,
        )
      await delay(POLL_MS, undefined, { signal })
    }
    throw new ConvertError('MOUNT_FAILED', `nydusd could not mount the image: ${await this.#exit}`)
  }

  /** Waits for its end, which is an error unless `signal` was the cause. */
  async ended(signal: AbortSignal): Promise<void> {
    const aborted = new Promise<undefined>((done) => {
      signal.addEventListener('abort', () => done(undefined), { once: true })
      if (signal.aborted) done(undefined)
    })
    const how = await Promise.race([this.#exit, aborted])
    if (how !== undefined && !signal.aborted)
      throw new ConvertError('MOUNT_FAILED', `nydusd is gone, and the mount with it: ${how}`)
  }

  /** Asks it to unmount and end; it is killed when it does not. */
  async stop(): Promise<void> {
    if (this.#isRunning) this.#child.kill('SIGTERM')
    const late = new AbortController()
    const killed = delay(STOP_MS, undefined, { signal: late.signal }).then(
      () => void this.#child.kill('SIGKILL'),
      () => undefined, // it ended in time
    )
    await this.#exit
    late.abort()
    await killed
  }
}

/** The daemon's state, or undefined while nobody answers. */
function askState(socketPath: string): Promise<string | undefined> {
  return new Promise((done) => {
    const asked = request({ socketPath, path: '/api/v1/daemon', timeout: 5_000 }, (answer) => {
      const parts: Buffer[] = []
      answer.on('data', (part: Buffer) => parts.push(part))
      answer.on('error', () => done(undefined))
      answer.on('end', () => done(stateIn(Buffer.concat(parts).toString('utf8'))))
    })
    asked.on('timeout', () => asked.destroy())
    // Not yet there, or not yet listening: the caller asks again until its deadline.
    asked.on('error', () => done(undefined))
    asked.end()
  })
}

function stateIn(body: string): string | undefined {
  try {
    const info: unknown = JSON.parse(body)
    return typeof info === 'object' && info !== null && 'state' in info && typeof info.state === 'string'
      ? info.state
      : undefined
  } catch {
    // An answer cut short: asked again.
    return undefined
  }
}
