import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { serve } from '../containerd/index.ts'
import { raiseFileLimit } from '../kernel/index.ts'
import { Credentials } from './credentials/index.ts'
import { Images } from './daemons/index.ts'
import { Detector, registryAccess } from './detect/index.ts'
import { SnapshotterLog } from './log/index.ts'
import { configuredWish, KernelImages } from './kernel-images/index.ts'
import { Mirrors } from './mirrors/index.ts'
import type { ServedImages } from './parts.ts'
import { readTemplate } from './registry-config.ts'
import { snapshotsService } from './service.ts'
import type { Snapshot } from './snapshot.ts'
import { notifyManager, takeServiceManager } from './service-manager.ts'
import { findProgram, type Settings } from './settings/index.ts'
import { NydusSnapshotter, type Snapshotter } from './snapshotter.ts'
import { SnapshotStore } from './store/index.ts'
import { Collector, SnapshotterMetrics, startController, startMetrics, startProfiles } from './system/index.ts'
import type { Stargz } from './stargz/index.ts'
import type { Tarfs } from './tarfs/index.ts'
import { ToldSnapshotter } from './told-snapshotter.ts'

const FILE_LIMIT = 1_048_576
/** So long calls of containerd may go on when we stop. */
const GRACE_MS = 5_000
/** From a container's start to the check of its image. */
const CHECK_DELAY_MS = 2_000
/** Who may use the socket of containerd: its owner. */
const SOCKET_MODE = 0o600

/**
 * Serves containerd until `signal` is aborted, then stops in order; mounts and nydusds go on unless the configuration has them end. What was opened is closed in the
 * reverse order, also when a later step fails. Throws what the first step that fails throws: SnapshotterError 'BAD_CONFIG', 'LOCKED', 'BAD_STATE', or ContainerdError for the socket.
 */
export async function runSnapshotter(settings: Settings, signal: AbortSignal): Promise<void> {
  takeServiceManager()
  mkdirSync(settings.root, { recursive: true, mode: 0o700 })
  const log = new SnapshotterLog(settings.log)
  try {
    await using opened = new AsyncDisposableStack()
    for (const warning of settings.warnings) log.warn(`configuration: ${warning}`)
    const startedMs = performance.now()
    await start(settings, log, opened)
    notifyManager('READY=1', `serving ${settings.address}`, log)
    log.info(
      `ready after ${Math.round(performance.now() - startedMs)} ms: serving ${settings.address}, root ${settings.root}, daemon_mode ${settings.daemonMode}`,
    )
    await aborted(signal)
    notifyManager('STOPPING=1', 'stopping', log)
    log.info('stopping')
    await opened.disposeAsync()
    log.info('stopped')
  } catch (error) {
    log.error(error instanceof Error ? error.message : String(error))
    throw error
  } finally {
    await log.close()
  }
}

/** The lock of the root comes first, then the socket: from then on clients are connected, and their calls wait for the rest. */
async function start(settings: Settings, log: SnapshotterLog, opened: AsyncDisposableStack): Promise<void> {
  raiseFileLimit(FILE_LIMIT)
  const store = SnapshotStore.open(settings.root)
  opened.defer(() => store.close())
  for (const warning of store.warnings) log.warn(warning)
  const own = located(settings, store.root)
  const credentials = await Credentials.open({
    settings: own.remote.auth,
    directory: join(own.root, 'credentials'),
    log,
  })
  opened.defer(async () => await credentials.close())
  const ready = Promise.withResolvers<void>()
  let snapshotter: Snapshotter | undefined
  const late = new Proxy({} as Snapshotter, {
    get: (_none, name): unknown => {
      const found: unknown = snapshotter && Reflect.get(snapshotter, name)
      return typeof found === 'function' ? found.bind(snapshotter) : found
    },
  })
  const server = await serve({
    path: own.address,
    mode: SOCKET_MODE,
    uid: own.uid,
    gid: own.gid,
    services: [snapshotsService(late)],
    raw: credentials.services,
    ready: ready.promise,
  })
  const stopServer = async (): Promise<void> => await server.stop(GRACE_MS)
  await using unlessReady = new AsyncDisposableStack()
  unlessReady.defer(stopServer)
  snapshotter = await startSnapshotter(own, { store, credentials, log, opened })
  // Stopped first: no call may come to what is closed.
  opened.defer(stopServer)
  unlessReady.move()
  ready.resolve()
}

async function startSnapshotter(
  settings: Settings,
  of: { store: SnapshotStore; credentials: Credentials; log: SnapshotterLog; opened: AsyncDisposableStack },
): Promise<Snapshotter> {
  const { store, credentials, log, opened } = of
  const records = { daemons: store.records('daemons'), instances: store.records('instances') }
  const template = await readTemplate(settings.daemon.configPath)
  const detector = detectorOf(settings, { credentials, template, log })
  const directory = settings.remote.mirrorsDir
  const { nydusdPath } = settings.daemon
  const mirrors = directory === '' ? {} : { mirrors: new Mirrors({ directory, nydusdPath, template, log }) }
  const isThere = (snapshot: Snapshot): boolean => store.find(snapshot.key)?.id === snapshot.id
  const images = await Images.start({ settings, records, credentials, ...mirrors, isThere, log })
  const wish = configuredWish(settings, template)
  const kernelImages = await KernelImages.start(
    {
      settings,
      snapshots: () => new Set(store.list([]).map(({ id }) => id)),
      log,
      delayMs: CHECK_DELAY_MS,
    },
    typeof wish === 'string' ? wish : 'never',
  )
  const metrics = new SnapshotterMetrics()
  for (const event of ['RUNNING', 'DIED', 'DESTROYED', 'HUNG'] as const)
    images.events.on(event, () => metrics.daemonEvent(event))
  // Those that an earlier process left and that were taken up before anybody listened.
  for (const { state } of images.list()) if (state === 'running') metrics.daemonEvent('RUNNING')
  const inner = new NydusSnapshotter({
    settings,
    store,
    images: counted(images, metrics),
    kernelImages,
    detector,
    tarfs: await tarfsOf(settings, { credentials, template, log }, async () => await images.noRemoval()),
    stargz: await stargzOf(settings, { credentials, template, log }),
    log,
    observe: (operation, elapsedMs) => metrics.operation(operation, elapsedMs),
  })
  const snapshotter = new ToldSnapshotter(inner, async (id, signal) => await images.fetched(id, signal), log)
  opened.defer(async () => await snapshotter.close())
  if (settings.remote.auth.renewalIntervalMs > 0) credentials.startRenewal(images)
  await startPages(settings, { images, kernelImages, credentials, metrics, log, opened })
  return snapshotter
}

/** Images whose cache is counted when it is cleaned. */
function counted(images: Images, metrics: SnapshotterMetrics): ServedImages {
  return {
    ensure: async (request, signal) => await images.ensure(request, signal),
    find: (snapshotId, mapping) => images.find(snapshotId, mapping),
    release: async (snapshotId, mapping) => await images.release(snapshotId, mapping),
    cacheUsage: async (blobId) => await images.cacheUsage(blobId),
    stop: async () => await images.stop(),
    collectCache: async (roots, signal) => {
      const collected = await images.collectCache(roots, signal)
      metrics.blobsDeleted.add(collected.removed)
      metrics.blobErrors.add(collected.failed)
      metrics.blobsInUse.set(collected.inUse)
      return collected
    },
  }
}

async function startPages(
  settings: Settings,
  of: {
    images: Images
    kernelImages: KernelImages | undefined
    credentials: Credentials
    metrics: SnapshotterMetrics
    log: SnapshotterLog
    opened: AsyncDisposableStack
  },
): Promise<void> {
  const { system, cache } = settings
  const { images, kernelImages, credentials, metrics, log, opened } = of
  if (system.enable) {
    const { address, uid, gid } = system
    const api = await startController({ address, uid, gid, images, kernelImages, log })
    opened.defer(async () => await api.close())
  }
  if (system.enable && system.pprofAddress !== '') {
    const profiles = await startProfiles(system.pprofAddress)
    opened.defer(async () => await profiles.close())
    log.info(`profiles are at http://${system.pprofAddress}/debug/pprof/`)
  }
  if (settings.metrics.address === '') return
  const { address, collectIntervalMs, hungIoIntervalMs } = settings.metrics
  const collector = new Collector({
    metrics,
    images,
    kernelImages,
    credentials,
    cacheDirectory: cache.dir,
    collectIntervalMs,
    hungIoIntervalMs,
    log,
  })
  opened.defer(() => collector.stop())
  const page = await startMetrics(address, collector)
  opened.defer(async () => await page.close())
  log.info(`metrics are at http://${address}/v1/metrics`)
}

/** The settings with programs that are there, and below the real path of the root: mounts are known by it. */
function located(settings: Settings, root: string): Settings {
  const { daemon, log, cache } = settings
  const moved = (path: string): string =>
    path.startsWith(`${settings.root}/`) ? root + path.slice(settings.root.length) : path
  // Others serve no image by nydusd.
  const daemonMode = daemon.fsDriver === 'fusedev' || daemon.fsDriver === 'fscache' ? settings.daemonMode : 'none'
  const nydusdPath =
    daemonMode === 'none' ? daemon.nydusdPath : findProgram(daemon.nydusdPath, 'nydusd', 'daemon.nydusd_path')
  return {
    ...settings,
    root,
    daemonMode,
    log: { ...log, dir: moved(log.dir) },
    cache: { ...cache, dir: moved(cache.dir) },
    daemon: { ...daemon, nydusdPath },
  }
}

/** Who looks for Nydus forms of plain images, where that is wanted. */
function detectorOf(
  { daemon, indexDetect: index, referrerDetect: referrer, remote }: Settings,
  of: { credentials: Credentials; template: unknown; log: SnapshotterLog },
): Detector | undefined {
  if (!index && !referrer) return undefined
  const { credentials, template, log } = of
  const access = registryAccess(template, { fsDriver: daemon.fsDriver, skipSslVerify: remote.skipSslVerify })
  return new Detector({ credentials, access, index, referrer, log })
}

interface RegistryUsers {
  readonly credentials: Credentials
  readonly template: unknown
  readonly log: SnapshotterLog
}

/** Images that run from the tars of their layers, where that is wanted. */
async function tarfsOf(
  settings: Settings,
  of: RegistryUsers,
  noRemoval: () => Promise<void>,
): Promise<Tarfs | undefined> {
  if (!settings.tarfs.enable) return undefined
  const { Tarfs } = await import('./tarfs/index.ts')
  return new Tarfs({ settings, noRemoval, ...converterParts(settings, of) })
}

/** eStargz layers as they are, where that is wanted. */
async function stargzOf(settings: Settings, of: RegistryUsers): Promise<Stargz | undefined> {
  if (!settings.stargz) return undefined
  const { Stargz } = await import('./stargz/index.ts')
  return new Stargz({ root: settings.root, ...converterParts(settings, of) })
}

function converterParts({ daemon, remote }: Settings, { credentials, template, log }: RegistryUsers) {
  const program = findProgram(daemon.nydusImagePath, 'nydus-image', 'daemon.nydusimage_path')
  const access = registryAccess(template, { fsDriver: daemon.fsDriver, skipSslVerify: remote.skipSslVerify })
  return { program, access, credentials, log }
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return
  await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
