/** For tests: a snapshotter behind its socket, mounts as containerd makes them, trees as text. */
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, lstatSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { ContainerdClient, type MountMessage, serve, Snapshots } from '../containerd/index.ts'
import { readMountInfo, unmount } from '../kernel/index.ts'
import type { KernelImages } from './kernel-images/index.ts'
import type { BootstrapDetector, ServedImages, SnapshotterParts } from './parts.ts'
import { snapshotsService } from './service.ts'
import { parseSettings, type Settings } from './settings/index.ts'
import { NydusSnapshotter } from './snapshotter.ts'
import type { Stargz } from './stargz/index.ts'
import { SnapshotStore } from './store/index.ts'
import type { Tarfs } from './tarfs/index.ts'

const run = promisify(execFile)

/** Why tests that mount cannot run here; false: they can. */
export function whyNoMounts(): string | false {
  return process.getuid?.() === 0 ? false : 'mounting overlays needs root'
}

export interface TestSnapshotter {
  readonly root: string
  /** A folder for whatever a test wants. */
  readonly work: string
  readonly client: ReturnType<typeof clientOf>
  readonly store: SnapshotStore
  readonly snapshotter: NydusSnapshotter
  /** What was logged as a warning or an error. */
  readonly complaints: string[]
  /** The process ends and another one takes its place, on the same root. */
  restart(): Promise<TestSnapshotter>
  /** The one that took its place ends, too. */
  close(): Promise<void>
}

export interface TestOptions {
  /** Lines of the configuration. */
  readonly config?: string
  readonly images?: (
    settings: SnapshotterParts['settings'],
    store: SnapshotStore,
  ) => Promise<ServedImages> | ServedImages
  readonly kernelImages?: (settings: Settings, store: SnapshotStore) => Promise<KernelImages | undefined>
  readonly detector?: BootstrapDetector
  readonly stargz?: (settings: Settings) => Stargz
  readonly tarfs?: (settings: Settings) => Tarfs
}

export function clientOf(path: string) {
  return new ContainerdClient(path, { namespace: 'testsuite', timeoutMs: 60_000 })
}

/** For images that have no Nydus form. */
const NO_IMAGES: ServedImages = {
  ensure: async () => {
    throw new Error('no image was to be mounted')
  },
  find: () => undefined,
  release: async () => {},
  cacheUsage: async () => ({ bytes: 0, inodes: 0 }),
  collectCache: async () => ({ removed: 0, skipped: undefined }),
  stop: async () => {},
}

export async function startSnapshotter(
  options: TestOptions = {},
  folder = mkdtempSync(join(tmpdir(), 'snap-')),
): Promise<TestSnapshotter> {
  const [root, work] = [join(folder, 'root'), join(folder, 'work')]
  mkdirSync(work, { recursive: true })
  const settings = parseSettings(`version = 1\nroot = "${root}"\n${options.config ?? ''}`)
  const store = SnapshotStore.open(root)
  const complaints: string[] = []
  const complain = (line: string): void => void complaints.push(line)
  const snapshotter = new NydusSnapshotter({
    settings,
    store,
    images: (await options.images?.(settings, store)) ?? NO_IMAGES,
    kernelImages: await options.kernelImages?.(settings, store),
    detector: options.detector,
    tarfs: options.tarfs?.(settings),
    stargz: options.stargz?.(settings),
    log: { error: complain, warn: complain, info: () => {}, debug: () => {}, trace: () => {} },
    observe: () => {},
  })
  const path = join(folder, 's.sock')
  const owner = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
  const server = await serve({ path, ...owner, services: [snapshotsService(snapshotter)], raw: [] })
  const client = clientOf(path)
  let successor: TestSnapshotter | undefined
  const stop = async (): Promise<void> => {
    client.close()
    await server.stop(1000)
    await snapshotter.close()
  }
  return {
    root: store.root,
    work,
    client,
    store,
    snapshotter,
    complaints,
    restart: async () => {
      await stop()
      successor = await startSnapshotter(options, folder)
      return successor
    },
    close: async () => {
      await successor?.close()
      await stop()
      // Only now nobody mounts any more: images are made ready in the background.
      for (const { at } of (await readMountInfo()).reverse()) if (at.startsWith(`${folder}/`)) await unmount(at, true)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** The calls of the service. */
export function callsOf(client: ContainerdClient) {
  return client.service(Snapshots)
}

/** Options past a page do not reach the kernel: containerd shortens them by changing into the folder that all lower directories have in common, and so does this. */
const PAGE = 4096 - 512

/** Mounts as containerd does. The caller unmounts. */
export async function mountAll(mounts: readonly MountMessage[], at: string): Promise<void> {
  mkdirSync(at, { recursive: true })
  for (const { type, source, options } of mounts)
    if (type === 'bind') {
      await run('mount', ['--rbind', source, at])
      if (options.includes('ro')) await run('mount', ['-o', 'remount,bind,ro', at])
    } else {
      const { text, folder } = shortened(options)
      await run('mount', ['-t', type, source, at, '-o', text], { cwd: folder })
    }
}

function shortened(options: readonly string[]): { text: string; folder: string } {
  const text = options.join(',')
  const lower =
    options
      .find((option) => option.startsWith('lowerdir='))
      ?.slice('lowerdir='.length)
      .split(':') ?? []
  const folder = join(lower[0] ?? '/', '../..')
  if (text.length < PAGE || !lower.every((path) => path.startsWith(`${folder}/`))) return { text, folder: '/' }
  const short = lower.map((path) => path.slice(folder.length + 1)).join(':')
  return {
    text: options.map((option) => (option.startsWith('lowerdir=') ? `lowerdir=${short}` : option)).join(','),
    folder,
  }
}

export async function withMounts<T>(
  mounts: readonly MountMessage[],
  at: string,
  use: () => T | Promise<T>,
): Promise<T> {
  await mountAll(mounts, at)
  try {
    return await use()
  } finally {
    await unmount(at)
  }
}

/** A line an entry: type and mode, owner, links of a file, what is in it. */
export function treeOf(top: string): string {
  const lines: string[] = []
  const visit = (path: string, name: string): void => {
    const stat = lstatSync(path)
    const content = stat.isFile()
      ? JSON.stringify(readFileSync(path, 'utf8'))
      : stat.isSymbolicLink()
        ? readlinkSync(path)
        : ''
    lines.push(
      `${name} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${stat.isDirectory() ? '' : stat.nlink} ${content}`,
    )
    if (!stat.isDirectory()) return
    for (const entry of readdirSync(path).sort()) visit(join(path, entry), `${name}/${entry}`)
  }
  visit(top, '')
  return lines.join('\n')
}
