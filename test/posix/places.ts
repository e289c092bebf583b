import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { mountOverlay, unmount } from '../../src/kernel/index.ts'

const root = join(import.meta.dirname, '../..')
const START_DEADLINE_MS = 30_000

/** Where nydusd is looked at: `overlayfs` = the kernel's, over a read-only image; `shared` = a directory of the host; `overlay` = an image with an overlay of nydusd's. */
export const MODES = ['overlayfs', 'shared', 'overlay'] as const
export type Mode = (typeof MODES)[number]

/** A mounted place for a suite. */
export interface Place {
  readonly mode: Mode
  readonly folder: string
  /** The directory that can be written to. */
  readonly at: string
  /** Of `overlayfs`: the read-only mount below. */
  readonly lower: string
  end(): Promise<void>
}

/** Builds a small image, starts nydusd (from its sources, or this program) and mounts. What fails leaves nothing behind. */
export async function prepare(mode: Mode, nydusd: string | undefined): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), 'nydusd-posix-'))
  try {
    return await mountIn(folder, mode, nydusd)
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    throw error
  }
}

async function mountIn(folder: string, mode: Mode, nydusd: string | undefined): Promise<Place> {
  chmodSync(folder, 0o755) // the suites become other users
  const at = (name: string): string => join(folder, name)
  for (const name of ['source', 'source/dir', 'blobs', 'cache', 'upper', 'work', 'mnt', 'merged', 'host'])
    mkdirSync(at(name))
  writeFileSync(at('source/file'), 'of the image')
  writeFileSync(at('source/dir/file'), 'of the image too')
  tool('nydus-image', ['create', '-t', 'directory', '-B', at('boot'), '-D', at('blobs'), at('source')])
  const overlay = { upper_dir: at('upper'), work_dir: at('work') }
  const config = {
    version: 2,
    backend: { type: 'localfs', localfs: { dir: at('blobs') } },
    cache: { type: 'blobcache', filecache: { work_dir: at('cache') } },
    rafs: {},
    ...(mode === 'overlay' ? { overlay } : {}),
  }
  writeFileSync(at('config.json'), JSON.stringify(config))
  const what =
    mode === 'shared' ? ['--shared-dir', at('host')] : ['--bootstrap', at('boot'), '--config', at('config.json')]
  const daemon = await start(folder, [...what, ...(mode === 'overlayfs' ? [] : ['--writable'])], nydusd)
  const stop = async (): Promise<void> => {
    await unmount(at('merged'), true)
    await end(daemon)
  }
  if (mode === 'overlayfs')
    try {
      await mountOverlay(at('merged'), { lower: [at('mnt')], upper: at('upper'), work: at('work') })
    } catch (error) {
      await stop()
      throw error
    }
  return {
    mode,
    folder,
    at: mode === 'overlayfs' ? at('merged') : at('mnt'),
    lower: at('mnt'),
    end: stop,
  }
}

async function end(daemon: ChildProcess): Promise<void> {
  if (daemon.exitCode !== null || daemon.signalCode !== null) return
  daemon.kill('SIGTERM')
  await once(daemon, 'close')
}

function tool(name: string, args: readonly string[]): void {
  execFileSync(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    join(root, 'src/cli', name, 'index.ts'),
    ...args,
  ])
}

async function start(folder: string, args: readonly string[], nydusd: string | undefined): Promise<ChildProcess> {
  const all = [
    '--mountpoint',
    join(folder, 'mnt'),
    '--apisock',
    join(folder, 'api.sock'),
    '--log-file',
    join(folder, 'log'),
    ...args,
  ]
  const sources = ['--disable-warning=ExperimentalWarning', join(root, 'src/cli/nydusd/index.ts')]
  const daemon =
    nydusd === undefined
      ? spawn(process.execPath, [...sources, ...all], { stdio: 'inherit' })
      : spawn(nydusd, all, { stdio: 'inherit' })
  for (const deadline = Date.now() + START_DEADLINE_MS; !existsSync(join(folder, 'api.sock')); await sleep(50))
    if (daemon.exitCode !== null || Date.now() > deadline) {
      await end(daemon)
      throw new Error(`nydusd did not start: ${readLog(folder)}`)
    }
  return daemon
}

function readLog(folder: string): string {
  const file = join(folder, 'log.log')
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n').slice(-1).join('') : 'it wrote no log'
}

/** Lines of `excluded.txt` for a suite in a mode: case and reason. */
export function excludedCases(suite: string, mode: Mode): ReadonlyMap<string, string> {
  const lines = readFileSync(join(import.meta.dirname, 'excluded.txt'), 'utf8').split('\n')
  return new Map(
    lines.flatMap((line) => {
      const [of, where, name, ...reason] = line.split(/\s+/)
      return of === suite && (where === mode || where === 'all') ? [[name, reason.join(' ')]] : []
    }),
  )
}
