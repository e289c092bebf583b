/** What a nydusd costs before it has done anything: the time to its first API answer, and memory with one idle mount. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildLocalImage } from './local-image.ts'
import { interleave, median, memoryOf } from './measure.ts'
import { mountImage } from './mounted.ts'
import { OURS, peerTools, type Tools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 9
/** Until what a start leaves behind is collected. */
const IDLE_MS = 1000
const MIB = 2 ** 20

export async function benchDaemon(report: Report): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-daemon-'))
  try {
    const image = buildLocalImage(join(work, 'image'), [])
    const memory = new Map<Tools['name'], Array<{ rss: number; pss: number }>>()
    const mounted = new Map<Tools['name'], number[]>()
    const contenders = [OURS, peerTools()].filter((tools) => tools !== undefined)
    const probes = contenders.map((tools) => [
      tools.name,
      async () => {
        const folder = join(work, 'run')
        mkdirSync(folder)
        const mount = await mountImage({ tools, ...image, work: folder, prefetch: false })
        try {
          await sleep(IDLE_MS)
          memory.set(tools.name, [...(memory.get(tools.name) ?? []), memoryOf(mount.pid)])
          mounted.set(tools.name, [...(mounted.get(tools.name) ?? []), mount.mountedSeconds * 1000])
          return mount.apiSeconds * 1000
        } finally {
          await mount.stop()
          rmSync(folder, { recursive: true, force: true })
        }
      },
    ])
    const api = await interleave(Object.fromEntries(probes), ROUNDS)
    const of = (name: Tools['name'], kind: 'rss' | 'pss'): number | undefined => {
      const list = memory.get(name)
      return list === undefined ? undefined : median(list.map((one) => one[kind])) / MIB
    }
    const usable = (name: Tools['name']): number | undefined =>
      mounted.has(name) ? median(mounted.get(name) ?? []) : undefined
    report.part('nydusd: start and memory')
    const nan = Number.NaN
    report.figure({
      what: 'exec to first API answer',
      unit: 'ms',
      ours: api['ours'] ?? nan,
      peer: api['peer'],
      target: { atMost: 150 },
    })
    report.figure({ what: 'exec to mounted', unit: 'ms', ours: usable('ours') ?? nan, peer: usable('peer') })
    report.figure({
      what: 'RSS, one idle mount',
      unit: 'MiB',
      ours: of('ours', 'rss') ?? nan,
      peer: of('peer', 'rss'),
      target: { atMost: 80e6 / MIB },
    })
    report.figure({ what: 'PSS, one idle mount', unit: 'MiB', ours: of('ours', 'pss') ?? nan, peer: of('peer', 'pss') })
    report.note(`medians of ${ROUNDS} interleaved starts, the programs in the page cache`)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
