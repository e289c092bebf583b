/** Files of the kernel's cache for images that share blobs: `src/daemon/services` has the tests of one image. */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ChunkInfo } from '../src/blob/index.ts'
import { Log } from '../src/daemon/log.ts'
import { parseBlobEntry } from '../src/daemon/services/blob-entry.ts'
import { BlobRegistry } from '../src/daemon/services/blob-registry.ts'
import { FsCache } from '../src/daemon/services/fscache.ts'
import { Scratch } from '../src/daemon/testing.ts'
import { CachefilesKernel } from '../src/kernel/vm/index.ts'
import { openBootstrap } from '../src/rafs/index.ts'
import { nydusImage } from './nydus-image.ts'

const NAMES = ['shared', 'single']

test('a blob of two images has the chunks of both, though the one that is asked first knows fewer', async () => {
  await using scratch = new Scratch()
  const [whole, part, blobs] = ['whole', 'part', 'blobs'].map((name) => scratch.folder(name))
  assert.ok(whole !== undefined && part !== undefined && blobs !== undefined)
  for (const name of NAMES) writeFileSync(join(whole, name), randomBytes(100_000))
  copyFileSync(join(whole, 'shared'), join(part, 'shared'))
  const boot = (name: string): string => join(scratch.path, `${name}.boot`)
  const create = (name: string, from: string, more: readonly string[]): void => {
    const args = ['--log-level', 'error', '--chunk-size', '0x10000', '--blob-dir', blobs, '-B', boot(name), ...more]
    nydusImage(['create', ...args, from], scratch.path)
  }
  create('whole', whole, [])
  const [blob = ''] = readdirSync(blobs)
  create('part', part, ['--chunk-dict', `bootstrap=${boot('whole')}`])
  const registry = new BlobRegistry()
  for (const id of ['part', 'whole']) {
    const cache = { cache_type: 'fscache', cache_config: { work_dir: scratch.cache } }
    const config = { backend_type: 'localfs', backend_config: { dir: blobs }, ...cache, metadata_path: boot(id) }
    await registry.add(parseBlobEntry({ type: 'bootstrap', id, domain_id: 'd', config }))
  }
  using kernel = new CachefilesKernel(scratch.folder('objects'))
  const log = new Log({ level: 'off', file: undefined, rotationBytes: 0 })
  const cache = new FsCache(kernel.device, scratch.path, registry, log)
  try {
    const size = await kernel.open(1, 'erofs,d', blob)
    const file = await kernel.read(1, 0, size)
    const chunks = plainChunks(boot('whole'))
    assert.ok(chunks.length > plainChunks(boot('part')).length, 'the other image knows fewer')
    const content = Buffer.concat(chunks.map(({ offset, length }) => file.subarray(offset, offset + length)))
    for (const name of NAMES) assert.ok(content.includes(readFileSync(join(whole, name))), name)
  } finally {
    await cache.close()
  }
})

/** Where the first blob's chunks lie in the file, as an image tells it. */
function plainChunks(bootstrap: string): Array<{ readonly offset: number; readonly length: number }> {
  const layout = openBootstrap(readFileSync(bootstrap)).layout(0)
  const info = new ChunkInfo()
  const found: Array<{ readonly offset: number; readonly length: number }> = []
  for (let index = layout.next(0); index < layout.chunkCount; index = layout.next(index + 1)) {
    layout.chunk(index, info)
    found.push({ offset: info.uncompressedOffset, length: info.uncompressedSize })
  }
  return found.sort((a, b) => a.offset - b.offset)
}
