import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildLocalImage } from './local-image.ts'
import { dropCaches, interleave, timed } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 5
/** A start that takes longer has failed. */
const START_MS = 20_000

/** A running nydusd with one mount. */
export interface MountedImage {
  readonly at: string
  readonly pid: number
  readonly apiSeconds: number
  readonly mountedSeconds: number
  stop(): Promise<void>
}

/** What a daemon is given; a registry backend or a folder of blobs. */
interface MountWanted {
  readonly tools: Tools
  readonly bootstrap: string
  readonly work: string
  readonly backend: Readonly<Record<string, unknown>>
  readonly prefetch: boolean
}

/** Starts a daemon on a bootstrap and waits until the mount point shows the image. */
export async function mountImage(wanted: MountWanted): Promise<MountedImage> {
  const { tools, work } = wanted
  const at = join(work, 'mnt')
  const cache = join(work, 'cache')
  for (const folder of [at, cache]) mkdirSync(folder, { recursive: true })
  const config = join(work, 'config.json')
  const sock = join(work, 'api.sock')
  rmSync(sock, { force: true })
  writeFileSync(config, JSON.stringify(daemonConfig(wanted, cache)))
  const before = statSync(at).dev
  const from = performance.now()
  const args = [
    '--config',
    config,
    '--bootstrap',
    wanted.bootstrap,
    '--mountpoint',
    at,
    '--apisock',
    sock,
    '--log-level',
    'warn',
    ...tools.daemonArgs,
  ]
  const daemon = spawn(tools.nydusd, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  let apiSeconds = 0
  let mountedSeconds = 0
  while (statSync(at).dev === before || apiSeconds === 0) {
    if (apiSeconds === 0 && existsSync(sock) && (await answers(sock))) apiSeconds = (performance.now() - from) / 1000
    if (mountedSeconds === 0 && statSync(at).dev !== before) mountedSeconds = (performance.now() - from) / 1000
    if (daemon.exitCode !== null) throw new Error(`${tools.nydusd} ended with ${daemon.exitCode} before it had mounted`)
    if (performance.now() - from > START_MS) {
      await stop(daemon)
      throw new Error(`${tools.nydusd} had not mounted after ${START_MS / 1000} s`)
    }
    await sleep(1)
  }
  return {
    at,
    pid: daemon.pid ?? 0,
    apiSeconds,
    mountedSeconds: mountedSeconds || (performance.now() - from) / 1000,
    stop: () => stop(daemon),
  }
}

function daemonConfig(wanted: MountWanted, cache: string): object {
  return {
    device: { backend: wanted.backend, cache: { type: 'blobcache', config: { work_dir: cache } } },
    mode: 'direct',
    digest_validate: false,
    iostats_files: false,
    enable_xattr: true,
    fs_prefetch: { enable: wanted.prefetch, threads_count: 4, prefetch_all: wanted.prefetch },
  }
}

async function answers(sock: string): Promise<boolean> {
  const ask = request({ socketPath: sock, path: '/api/v1/daemon', agent: false })
  ask.end()
  try {
    const [response] = await once(ask, 'response')
    response.resume()
    return response.statusCode === 200
  } catch {
    // Not listening yet: asked again.
    return false
  }
}

async function stop(daemon: ChildProcess): Promise<void> {
  if (daemon.exitCode !== null || daemon.signalCode !== null) return
  daemon.kill('SIGTERM')
  await once(daemon, 'exit')
}

/** One way to use a mounted image; seconds. */
const USES: Readonly<Record<string, (at: string) => number>> = {
  find: (at) => timed('find', [join(at, 'tree'), '-name', 'no such name']),
  'stat of all files': (at) => timed('find', [join(at, 'tree'), '-size', '+1000000000c']),
  'tar c': (at) => timed('sh', ['-c', 'tar cf - "$1" | cat >/dev/null', 'sh', join(at, 'tree')]),
  'sequential 512 MiB': (at) => timed('dd', [`if=${join(at, 'large')}`, 'of=/dev/null', 'bs=1M', 'status=none']),
  'random 4 KiB, 1 job': (at) => random(at, 1),
  'random 4 KiB, 8 jobs': (at) => random(at, 8),
}

function random(at: string, jobs: number): number {
  const reads = 40_000 / jobs
  const args = [
    '--name=r',
    `--filename=${join(at, 'large')}`,
    '--rw=randread',
    '--bs=4k',
    '--direct=1',
    '--ioengine=psync',
    `--numjobs=${jobs}`,
    '--thread',
    '--readonly',
    `--io_size=${reads * 4}k`,
    '--size=512m',
    '--randrepeat=1',
    '--output-format=terse',
  ]
  return timed('fio', args)
}

/**
 * Seconds of each use, daemon by daemon, on mounts whose data is in the daemon's cache ("warm": the kernel's caches are dropped before each).
 * Medians of `rounds` interleaved runs.
 */
export async function measureUses(
  mounts: Readonly<Record<string, Pick<MountedImage, 'at'>>>,
  rounds: number,
  isWanted: (use: string) => boolean = () => true,
): Promise<Record<string, Record<string, number>>> {
  const results: Record<string, Record<string, number>> = {}
  for (const mount of Object.values(mounts)) timed('sh', ['-c', 'tar cf - "$1" | cat >/dev/null', 'sh', mount.at])
  for (const [use, run] of Object.entries(USES)) {
    if (!isWanted(use) || (use.startsWith('random') && !hasFio())) continue
    const probes = Object.entries(mounts).map(([name, mount]) => [
      name,
      () => {
        dropCaches()
        return run(mount.at)
      },
    ])
    results[use] = await interleave(Object.fromEntries(probes), rounds)
  }
  return results
}

function hasFio(): boolean {
  return existsSync('/usr/bin/fio')
}

/** How fast a mounted image is used whose data is cached on disk already. */
export async function benchMounted(report: Report): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-mounted-'))
  const mounts: Record<string, MountedImage> = {}
  try {
    const image = buildLocalImage(join(work, 'image'), ['large'])
    for (const tools of [OURS, peerTools()].filter((tools) => tools !== undefined)) {
      const folder = join(work, tools.name)
      mkdirSync(folder)
      mounts[tools.name] = await mountImage({ tools, ...image, work: folder, prefetch: false })
    }
    report.part(`Mounted, warm, ${image.entries.toLocaleString('en')} entries`)
    // Throughput: what a second does, so that more is better.
    for (const [use, seconds] of Object.entries(await measureUses(mounts, ROUNDS)))
      report.figure({
        what: use,
        unit: 'per s',
        ours: 1 / (seconds['ours'] ?? Number.NaN),
        peer: seconds['peer'] === undefined ? undefined : 1 / seconds['peer'],
        target: { ratioAtLeast: 0.9 },
      })
    if (!hasFio()) report.note('random reads are left out: fio is not installed')
    report.note(
      `medians of ${ROUNDS} interleaved runs; the kernel's caches are dropped before each, the daemons' are full`,
    )
  } finally {
    for (const mount of Object.values(mounts)) await mount.stop()
    rmSync(work, { recursive: true, force: true })
  }
}
