import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SnapshotterError } from './errors.ts'
import { CRI_IMAGE_REF, NYDUS_BLOB, NYDUS_BOOTSTRAP, SNAPSHOT_REF } from './labels.ts'
import type { Log } from './log/index.ts'
import type { ReadyImage, ServedImages } from './parts.ts'
import { parseSettings } from './settings/index.ts'
import { NydusSnapshotter } from './snapshotter.ts'
import { SnapshotStore } from './store/index.ts'
import { ToldSnapshotter } from './told-snapshotter.ts'

const IMAGE = 'registry.example/app:1'
const LAYERS = 'containerd.io/snapshot/cri.image-layers'
const NEVER = new AbortController().signal

class LinesLog implements Log {
  readonly lines: string[] = []
  /** Lines come after the calls that they tell of. */
  async has(start: string): Promise<void> {
    while (!this.lines.some((line) => line.startsWith(`info ${start} `))) await sleep(5)
  }
  error(line: string): void {
    this.lines.push(`error ${line}`)
  }
  warn(line: string): void {
    this.lines.push(`warn ${line}`)
  }
  info(line: string): void {
    this.lines.push(`info ${line}`)
  }
  debug(): void {
    // not looked at
  }
  trace(): void {
    // not looked at
  }
}

/** An image that is mounted at once. */
const IMAGES: ServedImages = {
  ensure: async (): Promise<ReadyImage> =>
    await Promise.resolve({ mountpoint: '/mounted', bootstrap: '/b', configPath: '/c' }),
  find: () => undefined,
  release: async () => await Promise.resolve(),
  cacheUsage: async () => await Promise.resolve({ bytes: 0, inodes: 0 }),
  collectCache: async () => await Promise.resolve({ removed: 0, skipped: undefined }),
  stop: async () => await Promise.resolve(),
}

test('a pull and a start are a line each, with bytes and times', { timeout: 180_000 }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'told-'))
  const log = new LinesLog()
  const store = SnapshotStore.open(root)
  const settings = parseSettings(`version = 1\nroot = "${root}"`)
  const inner = new NydusSnapshotter({
    settings,
    store,
    images: IMAGES,
    kernelImages: undefined,
    detector: undefined,
    tarfs: undefined,
    stargz: undefined,
    log,
    observe: () => undefined,
  })
  let now = 0
  /** By number of the snapshot: what a daemon says of its image. */
  const fetched = new Map<number, number>()
  const told = new ToldSnapshotter(
    inner,
    async (id) => await Promise.resolve(fetched.get(id)),
    log,
    () => (now += 750),
  )
  try {
    const labels = (ref: string, layers: string, own: string): ReadonlyMap<string, string> =>
      new Map([
        [SNAPSHOT_REF, ref],
        [CRI_IMAGE_REF, IMAGE],
        [LAYERS, layers],
        [own, 'true'],
      ])
    const isSkip = (error: unknown): boolean => error instanceof SnapshotterError && error.code === 'ALREADY_EXISTS'
    await assert.rejects(told.prepare('k8s.io/1/extract-1', '', labels('sha256:a', 'd1,d2', NYDUS_BLOB), NEVER), isSkip)
    const ofBootstrap = labels('sha256:b', 'd2', NYDUS_BOOTSTRAP)
    await told.prepare('k8s.io/2/extract-2', 'sha256:a', ofBootstrap, NEVER)
    writeFileSync(join(store.directory(store.stat('k8s.io/2/extract-2')), 'fs/image.boot'), Buffer.alloc(3 << 20, 1))
    await told.commit('k8s.io/3/sha256:b', 'k8s.io/2/extract-2', ofBootstrap, '')
    await told.usage('k8s.io/3/sha256:b', NEVER)
    await told.prepare('k8s.io/4/container-1', 'k8s.io/3/sha256:b', new Map(), NEVER)
    await log.has('prepared container-1')
    fetched.set(store.stat('k8s.io/3/sha256:b').id, 12.5 * 2 ** 20)
    await told.prepare('k8s.io/5/container-1b', 'k8s.io/3/sha256:b', new Map(), NEVER)
    await log.has('prepared container-1b')
    await assert.rejects(told.prepare('k8s.io/4/container-2', 'nothing', new Map(), NEVER))
    assert.deepEqual(
      log.lines
        .filter((line) => /pulled|prepare/.test(line))
        .map((line) => line.replace(/: missing parent.*/, ': missing parent')),
      [
        `info pulled ${IMAGE}: 1 layer unpacked (3.0 MiB), 1 layer left in the registry, 1.5 s`,
        `info prepared container-1 of ${IMAGE}: lazy, 3.0 MiB of layers here, 750 ms`,
        `info prepared container-1b of ${IMAGE}: lazy, 3.0 MiB of layers here, 12.5 MiB fetched so far, 750 ms`,
        'warn cannot prepare container-2: missing parent',
      ],
    )
  } finally {
    await told.close()
    rmSync(root, { recursive: true })
  }
})
