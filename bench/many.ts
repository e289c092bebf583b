/** What a nydusd costs with many mounts in it, and whether mounts and opens leave anything behind. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { unmount } from '../src/kernel/index.ts'
import { buildLocalImage, type LocalImage } from './local-image.ts'
import { memoryOf } from './measure.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'

const MOUNTS = 50
/** Small by default; NYDUS_BENCH_FULL=1 takes the numbers that are promised. */
const [ROUNDS, OPENS] = process.env['NYDUS_BENCH_FULL'] === '1' ? [10_000, 1_000_000] : [20, 2_000]
const START_MS = 20_000
const CALL_MS = 60_000
/** Until what was let go of is collected. */
const IDLE_MS = 2_000
const MIB = 2 ** 20
const MB = 1e6

interface Figures {
  readonly mounted: number
  readonly growth: number
  readonly descriptors: number
}

/** A daemon with no mount yet. */
class Daemon implements AsyncDisposable {
  readonly work: string
  readonly mnt: string
  readonly pid: number
  readonly #child: ReturnType<typeof spawn>
  readonly #image: LocalImage

  constructor(tools: Tools, image: LocalImage, work: string) {
    this.work = work
    this.mnt = join(work, 'mnt')
    mkdirSync(this.mnt, { recursive: true })
    const args = ['--mountpoint', this.mnt, '--apisock', join(work, 'api.sock'), '--log-level', 'error']
    this.#child = spawn(tools.nydusd, [...args, ...tools.daemonArgs], { stdio: 'ignore' })
    this.pid = this.#child.pid ?? 0
    this.#image = image
  }

  async ready(): Promise<void> {
    const until = performance.now() + START_MS
    while ((await this.#call('GET', '/api/v1/daemon').catch(() => undefined))?.status !== 200) {
      if (performance.now() > until || this.#child.exitCode !== null) throw new Error('the daemon does not answer')
      await sleep(20)
    }
  }

  async mount(name: string): Promise<void> {
    const cache = join(this.work, 'cache')
    const device = { backend: this.#image.backend, cache: { type: 'blobcache', config: { work_dir: cache } } }
    const config = JSON.stringify({ device, mode: 'direct', id: name })
    const body = JSON.stringify({ source: this.#image.bootstrap, fs_type: 'rafs', config })
    await this.#expect('POST', name, body)
  }

  async unmount(name: string): Promise<void> {
    await this.#expect('DELETE', name)
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) {
      this.#child.kill('SIGTERM')
      await once(this.#child, 'exit')
    }
    await unmount(this.mnt, true)
  }

  async #expect(method: string, name: string, body?: string): Promise<void> {
    const { status, text: said } = await this.#call(method, `/api/v1/mount?mountpoint=/${name}`, body)
    if (status !== 204) throw new Error(`${method} of ${name} was answered ${status}: ${said}`)
  }

  async #call(method: string, path: string, body?: string): Promise<{ status: number; text: string }> {
    const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    const ask = request({
      socketPath: join(this.work, 'api.sock'),
      method,
      path,
      headers,
      agent: false,
      signal: AbortSignal.timeout(CALL_MS),
    })
    ask.end(body)
    const [response] = await once(ask, 'response')
    return { status: response.statusCode, text: await text(response) }
  }
}

async function measure(tools: Tools, image: LocalImage, work: string): Promise<Figures> {
  await using daemon = new Daemon(tools, image, work)
  await daemon.ready()
  for (let index = 0; index < MOUNTS; index += 1) await daemon.mount(`m${index}`)
  for (let index = 0; index < MOUNTS; index += 1) statSync(join(daemon.mnt, `m${index}`, 'tree'))
  await sleep(IDLE_MS)
  const mounted = memoryOf(daemon.pid).rss
  await wear(daemon, ROUNDS / 4, OPENS / 4) // what is allocated once is no growth
  await sleep(IDLE_MS)
  const [before, descriptors] = [memoryOf(daemon.pid).rss, daemon.descriptors()]
  await wear(daemon, ROUNDS, OPENS)
  await sleep(IDLE_MS)
  const growth = memoryOf(daemon.pid).rss - before
  return { mounted: mounted / MIB, growth: growth / MIB, descriptors: daemon.descriptors() - descriptors }
}

async function wear(daemon: Daemon, rounds: number, opens: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await daemon.mount('again')
    await daemon.unmount('again')
  }
  const tree = join(daemon.mnt, 'm0', 'tree')
  for (let open = 0; open < opens; open += 1) closeSync(openSync(tree, 'r'))
}

export async function benchMany(report: Report): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-many-'))
  try {
    const image = buildLocalImage(join(work, 'image'), [])
    const ours = await measure(OURS, image, join(work, 'ours'))
    const tools = peerTools()
    const peer = tools === undefined ? undefined : await measure(tools, image, join(work, 'peer'))
    report.part(`nydusd: ${MOUNTS} mounts; then ${ROUNDS} rounds of mount and unmount, ${OPENS} opens`)
    report.figure({
      what: `RSS, ${MOUNTS} mounts`,
      unit: 'MiB',
      ours: ours.mounted,
      peer: peer?.mounted,
      target: { atMost: ((120 + 3 * MOUNTS) * MB) / MIB },
    })
    report.figure({ what: 'growth of RSS', unit: 'MiB', ours: ours.growth, peer: peer?.growth, target: { atMost: 16 } })
    report.figure({
      what: 'more descriptors',
      unit: '',
      ours: ours.descriptors,
      peer: peer?.descriptors,
      target: { atMost: 0 },
    })
    report.note('one run each; NYDUS_BENCH_FULL=1 makes it 10,000 rounds and 1,000,000 opens')
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
