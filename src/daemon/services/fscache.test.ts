import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
import { ChunkInfo } from '../../blob/index.ts'
import { cachePlace, CachefilesKernel, parseCacheRequest } from '../../kernel/vm/index.ts'
import { openBootstrap } from '../../rafs/index.ts'
import { Log } from '../log.ts'
import { CARRIED_BLOBS, carriedImage, Scratch } from '../testing.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { BlobRegistry } from './blob-registry.ts'
import { FsCache } from './fscache.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs
const BOOTSTRAP = readFileSync(IMAGE.bootstrap)
const PAGE = 4096

interface Served extends AsyncDisposable {
  readonly kernel: CachefilesKernel
  readonly registry: BlobRegistry
  readonly cache: FsCache
  readonly log: string
}

async function serve(scratch: Scratch, blobs = CARRIED_BLOBS): Promise<Served> {
  const registry = new BlobRegistry()
  const backend = { backend_type: 'localfs', backend_config: { dir: blobs } }
  const cache = { cache_type: 'fscache', cache_config: { work_dir: scratch.cache } }
  const config = { ...backend, ...cache, metadata_path: IMAGE.bootstrap }
  await registry.add(parseBlobEntry({ type: 'bootstrap', id: 'image', domain_id: 'd', config }))
  const file = join(scratch.path, 'log')
  const kernel = new CachefilesKernel(mkdtempSync(join(scratch.path, 'objects-')))
  const log = new Log({ level: 'info', file, rotationBytes: 0 })
  const served = new FsCache(kernel.device, scratch.path, registry, log)
  return {
    kernel,
    registry,
    cache: served,
    get log() {
      return readFileSync(`${file}.log`, { encoding: 'utf8', flag: 'a+' })
    },
    async [Symbol.asyncDispose]() {
      await served.close()
      kernel[Symbol.dispose]()
      log.close()
    },
  }
}

/** Where the image's chunks lie in the blob as it is stored, and as it is read. */
function chunks(): Array<{ readonly stored: number; readonly plain: number; readonly size: number }> {
  const layout = openBootstrap(BOOTSTRAP).layout(0)
  const info = new ChunkInfo()
  return Array.from({ length: layout.chunkCount }, (_, index) => {
    layout.chunk(index, info)
    return { stored: info.compressedOffset, plain: info.uncompressedOffset, size: info.uncompressedSize }
  })
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

test('the kernel gets the bootstrap and the blob, every byte of them, and nothing stays open', async () => {
  await using scratch = new Scratch()
  await readAll(scratch)
  const before = openFiles() // what is made once is there
  await readAll(scratch)
  assert.equal(openFiles(), before)
})

async function readAll(scratch: Scratch): Promise<void> {
  await using served = await serve(scratch)
  const { kernel } = served
  assert.equal(await kernel.open(1, 'erofs,d', 'image'), BOOTSTRAP.length)
  const bootstrap = await kernel.read(1, 0, BOOTSTRAP.length)
  assert.ok(bootstrap.subarray(0, BOOTSTRAP.length).equals(BOOTSTRAP))
  assert.equal(bootstrap.length % PAGE, 0, 'whole pages')
  const size = await kernel.open(2, 'erofs,d', BLOB)
  assert.equal(size, openBootstrap(BOOTSTRAP).blobs[0]?.uncompressedSize)
  const file = await kernel.read(2, 0, size)
  const stored = readFileSync(join(CARRIED_BLOBS, BLOB))
  for (const chunk of chunks()) {
    const wanted = stored.subarray(chunk.stored, chunk.stored + chunk.size)
    assert.ok(file.subarray(chunk.plain, chunk.plain + chunk.size).equals(wanted))
  }
  kernel.close(1)
  assert.equal(served.log, '')
}

test('a read brings the chunk that it is in, and no other; zeros go to the rest of its last page only', async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const size = await served.kernel.open(1, 'erofs,d', BLOB)
  const last = chunks()
    .toSorted((a, b) => a.plain - b.plain)
    .at(-1)
  assert.ok(last !== undefined)
  const file = await served.kernel.read(1, last.plain, 1)
  assert.ok(file.subarray(0, last.plain).every((byte) => byte === 0))
  const stored = readFileSync(join(CARRIED_BLOBS, BLOB)).subarray(last.stored, last.stored + last.size)
  assert.ok(file.subarray(last.plain, last.plain + last.size).equals(stored))
  assert.equal(file.length, last.plain + Math.ceil(last.size / PAGE) * PAGE)
  // Beyond the end there is nothing, which is no error.
  assert.equal((await served.kernel.read(1, size + PAGE, PAGE)).length, file.length)
})

test('what is not registered is not there; what is open is open once; what is removed stays for who has it', async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { kernel, registry } = served
  assert.equal(await kernel.open(1, 'erofs,d', 'other'), -2)
  assert.equal(await kernel.open(1, 'erofs,e', BLOB), -2)
  const size = await kernel.open(1, 'erofs,d', BLOB)
  assert.equal(await kernel.open(1, 'erofs,d', BLOB), -114)
  registry.remove('d', '')
  assert.equal(await kernel.open(2, 'erofs,d', BLOB), -2)
  const [chunk] = chunks()
  assert.ok(chunk !== undefined && size > 0)
  const stored = readFileSync(join(CARRIED_BLOBS, BLOB)).subarray(chunk.stored, chunk.stored + chunk.size)
  assert.ok(
    (await kernel.read(1, chunk.plain, chunk.size)).subarray(chunk.plain, chunk.plain + chunk.size).equals(stored),
  )
})

test('data that cannot be had, or is wrong, leaves a hole, and the read is answered; the next one asks again', async () => {
  await using scratch = new Scratch()
  const blobs = scratch.folder('blobs')
  const stored = readFileSync(join(CARRIED_BLOBS, BLOB))
  const [chunk] = chunks()
  assert.ok(chunk !== undefined)
  const damaged = Buffer.from(stored)
  damaged[chunk.stored] ^= 1
  writeFileSync(join(blobs, BLOB), damaged)
  await using served = await serve(scratch, blobs)
  await served.kernel.open(1, 'erofs,d', BLOB)
  assert.equal((await served.kernel.read(1, chunk.plain, chunk.size)).length, 0)
  assert.match(served.log, /cannot bring bytes .* of d\/[0-9a-f]{64}, whose reader gets EIO/)
  writeFileSync(join(blobs, BLOB), stored)
  await sleep(1_100) // what failed just now fails at once
  const file = await served.kernel.read(1, chunk.plain, chunk.size)
  const wanted = stored.subarray(chunk.stored, chunk.stored + chunk.size)
  assert.ok(file.subarray(chunk.plain, chunk.plain + chunk.size).equals(wanted))
})

test('messages that make no sense are told, and the next one is served', async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  const { kernel } = served
  kernel.send(7, 1, Buffer.alloc(0))
  kernel.send(0, 1, Buffer.alloc(3))
  kernel.send(0, 1, Buffer.from([255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
  kernel.send(2, 9, Buffer.alloc(16))
  kernel.close(9)
  assert.equal(await kernel.open(1, 'erofs,d', 'image'), BOOTSTRAP.length)
  assert.equal(served.log.match(/makes no sense/g)?.length, 3)
  assert.match(served.log, /reads object 9, which it has not opened/)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat({ max: 3 }), (bytes, opcode) => {
      const message = Buffer.concat([Buffer.alloc(16), bytes])
      message.writeUInt32LE(message.length, 8)
      message.writeUInt32LE(opcode, 4)
      try {
        const request = parseCacheRequest(message)
        if (request.kind === 'open') assert.ok(request.cookieKey.length + request.volumeKey.length <= bytes.length)
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'EPROTO')
      }
    }),
  )
})

test('a blob is culled in every volume that has it, by its name in the kernel’s directories', async () => {
  await using scratch = new Scratch()
  await using served = await serve(scratch)
  assert.deepEqual(cachePlace('erofs,domain', 'blob-1'), { directory: '@a6', name: 'Dblob-1' })
  assert.equal(cachePlace('erofs,d', 'a'.repeat(64)).directory, '@fe')
  assert.equal(cachePlace(`erofs,${'f'.repeat(64)}`, '0123456789abcdef'.repeat(4)).directory, '@60')
  for (const volume of ['erofs,domain', 'erofs,d', 'other']) {
    const { directory, name } = cachePlace(volume, 'blob-1')
    const folder = join(scratch.path, 'cache', `I${volume}`, directory)
    mkdirSync(folder, { recursive: true })
    if (volume !== 'erofs,d') writeFileSync(join(folder, name), '')
  }
  const before = process.cwd()
  served.cache.cull('blob-1')
  assert.equal(process.cwd(), before)
  assert.deepEqual([await served.kernel.told(), await served.kernel.told()], ['inuse Dblob-1', 'cull Dblob-1'])
  for (const id of ['../x', '', 'a/b', 'x\0'])
    assert.throws(() => served.cache.cull(id), { code: 'BAD_REQUEST' }, JSON.stringify(id))
  served.cache.cull('nowhere')
})
