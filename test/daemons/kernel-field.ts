/** For tests of images that the kernel shows: a field with a full cache, and containers. */
import assert from 'node:assert/strict'
import { closeSync, copyFileSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { CARRIED_BLOBS } from '../../src/daemon/testing.ts'
import { readMountInfoNow } from '../../src/kernel/index.ts'
import type { ImageRequest } from '../../src/snapshotter/daemons/index.ts'
import { KernelImages, type KernelImageWish, whyNoKernelImages } from '../../src/snapshotter/kernel-images/index.ts'
import { Field, IMAGE, skip as noDaemons } from './field.ts'

/** Why they cannot run, or false. */
export async function skipReason(): Promise<string | false> {
  if (noDaemons !== false) return noDaemons
  const field = new Field({ mode: 'none' })
  try {
    return (await whyNoKernelImages(field.settings.root, 'possible')) ?? false
  } finally {
    await field[Symbol.asyncDispose]()
  }
}

const [BLOB = ''] = IMAGE.blobs
export { BLOB }

export class KernelField extends Field {
  kernel: KernelImages | undefined

  /** As the snapshotter starts, on what is there. */
  async startKernel(wish: KernelImageWish | 'never' = 'possible'): Promise<KernelImages | undefined> {
    const store = this.store ?? assert.fail()
    const line = (level: string) => (message: string) => void this.lines.push(`${level} ${message}`)
    const log = { warn: line('warn'), info: line('info'), debug: line('debug') }
    const snapshots = (): Set<number> => new Set(store.list([]).map(({ id }) => id))
    this.kernel = await KernelImages.start({ settings: this.settings, snapshots, log, delayMs: 0 }, wish)
    return this.kernel
  }

  get shown(): KernelImages {
    return this.kernel ?? assert.fail(this.lines.join('\n'))
  }

  /** A file of the cache of {@link IMAGE}. */
  cached(suffix: string): string {
    return join(this.settings.cache.dir, BLOB + suffix)
  }

  /** All of {@link IMAGE}'s data, as the original's daemon leaves it. */
  fillCache(): void {
    mkdirSync(this.settings.cache.dir, { recursive: true })
    for (const suffix of ['.blob.data', '.blob.data.chunk_map', '.blob.meta'])
      copyFileSync(join(CARRIED_BLOBS, BLOB + suffix), this.cached(suffix))
  }

  /** A container that begins; its number. */
  container(name: string): number {
    return (this.store ?? assert.fail()).create('active', name, '', new Map()).id
  }

  override async stop(): Promise<void> {
    await this.kernel?.stop()
    this.kernel = undefined
    await super.stop()
  }

  /** What the kernel shows. */
  get erofs(): string[] {
    return readMountInfoNow()
      .filter(({ at, type }) => type === 'erofs' && at.startsWith(`${this.path}/`))
      .map(({ at }) => at)
  }
}

interface Started extends AsyncDisposable {
  readonly field: KernelField
  readonly request: ImageRequest
}

/** A snapshotter with a pulled image, all of whose data is in the cache. */
export async function startField(mode: 'shared' | 'dedicated' | 'none' = 'none'): Promise<Started> {
  const field = new KernelField({ mode })
  field.fillCache()
  await field.start()
  await field.startKernel()
  const request = field.request(field.layer(IMAGE))
  return { field, request, [Symbol.asyncDispose]: async () => await field[Symbol.asyncDispose]() }
}

/** Asks as the first container does, and again when the check has ended. */
export async function lent({ field, request }: Started, user: number): Promise<string> {
  assert.equal(await field.shown.lend(request, user), undefined)
  await field.shown.settled()
  return (await field.shown.lend(request, user)) ?? assert.fail(field.lines.join('\n'))
}

/** Turns a bit of a file. */
export function flip(path: string, at: number): void {
  const fd = openSync(path, 'r+')
  try {
    const byte = readFileSync(path)[at] ?? 0
    writeSync(fd, Uint8Array.of(byte ^ 1), 0, 1, at)
  } finally {
    closeSync(fd)
  }
}
