import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { cachePath } from '../src/cache/index.ts'
import { mountErofs, unmount } from '../src/kernel/index.ts'
import { checkImage, whyNoKernelImages } from '../src/snapshotter/kernel-images/index.ts'
import { buildLocalImage } from './local-image.ts'
import { timed } from './measure.ts'
import { measureUses, mountImage } from './mounted.ts'
import { OURS } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 3
const TRIES = 100

/** A cached image that the kernel shows, against nydusd on the same cache. */
export async function benchShown(report: Report): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), 'nydus-bench-shown-'))
  try {
    const why = await whyNoKernelImages(work, 'possible')
    if (why === undefined) await measure(report, work)
    else report.note(`shown: left out, ${why}`)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

async function measure(report: Report, work: string): Promise<void> {
  const { bootstrap, backend, entries } = buildLocalImage(join(work, 'image'), ['large'])
  const served = await mountImage({ tools: OURS, bootstrap, backend, work, prefetch: false })
  const at = join(work, 'shown')
  mkdirSync(at)
  try {
    timed('sh', ['-c', 'tar cf - "$1" | cat >/dev/null', 'sh', served.at])
    const cacheDir = join(work, 'cache')
    const { blobs, bytes, seconds } = await checked({ bootstrap, output: join(work, 'image.boot'), cacheDir })
    const devices = blobs.map(({ id }) => cachePath(cacheDir, id, 'data'))
    await mountErofs(join(work, 'image.boot'), at, devices)
    try {
      report.part(`Shown by the kernel, against nydusd on the same cache, ${entries.toLocaleString('en')} entries`)
      // Direct reads, by which "random" measures, such mounts do not have.
      const uses = await measureUses({ shown: { at }, served }, ROUNDS, (use) => !use.startsWith('random'))
      for (const [what, taken] of Object.entries(uses))
        report.figure({
          what,
          unit: 'per s',
          ours: 1 / (taken['shown'] ?? Number.NaN),
          bound: { what: 'nydusd', value: 1 / (taken['served'] ?? Number.NaN) },
          target: { ratioAtLeast: 1 },
        })
      report.figure({ what: 'check before the first mount', unit: 'MB/s', ours: bytes / seconds / 1e6 })
    } finally {
      await unmount(at)
    }
  } finally {
    await served.stop()
  }
}

/** Asked until all is in the cache. */
async function checked(of: { readonly bootstrap: string; readonly output: string; readonly cacheDir: string }) {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const from = performance.now()
    const answer = await checkImage({ ...of, mapping: undefined, uid: 0, gid: 0 })
    if (answer.kind === 'fit') return { ...answer, seconds: (performance.now() - from) / 1000 }
    if (answer.kind !== 'missing') throw new Error(`the image cannot be shown: ${JSON.stringify(answer)}`)
    await sleep(100)
  }
  throw new Error('the cache was not filled')
}
