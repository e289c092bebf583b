/** Registries that are dead, slow or lie, and files that are damaged: a reader gets the right bytes or EIO, in bounded time, and things are well again by themselves. */
import assert from 'node:assert/strict'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import {
  anonymous,
  digestOf,
  type Fault,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../registry/index.ts'
import { CARRIED_BLOBS, carriedImage, differencesSeenApart, localConfig, Scratch, type TestDaemon } from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const FILE = 'sizes/65536'
const ARGS = [
  '--bootstrap',
  IMAGE.bootstrap,
  '--config',
  'config.json',
  '--virtual-mountpoint',
  '/image',
  '--log-level',
  'error',
]

/** A registry with the image's blobs, and a daemon that mounts it from there. */
class Rig extends Scratch {
  server!: RegistryServer // set by `mounted`, the only maker
  daemon!: TestDaemon
  #count = 0

  static async mounted(more: Record<string, unknown> = {}): Promise<Rig> {
    const rig = new Rig()
    rig.server = await startRegistry({ root: join(rig.path, 'registry'), host: '127.0.0.1', port: 0 })
    await rig.#push()
    const registry = {
      host: rig.server.host,
      repo: 'test/image',
      scheme: 'http',
      timeout: 1,
      connect_timeout: 1,
      ...more,
    }
    const config = {
      device: {
        backend: { type: 'registry', config: registry },
        cache: { type: 'blobcache', config: { work_dir: rig.cache } },
      },
      mode: 'direct',
      amplify_io: 0,
    }
    writeFileSync(join(rig.path, 'config.json'), JSON.stringify(config))
    rig.daemon = await rig.nydusd(ARGS)
    rig.server.resetCounters()
    return rig
  }

  get image(): string {
    return join(this.mnt, 'image')
  }

  /** Mounts the image once more, with an empty cache. */
  async fresh(): Promise<string> {
    const name = `fresh-${++this.#count}`
    const document = readFileSync(join(this.path, 'config.json'), 'utf8').replaceAll(
      JSON.stringify(this.cache),
      JSON.stringify(this.folder(name)),
    )
    const answer = await this.daemon.api('POST', `/api/v1/mount?mountpoint=/${name}`, {
      source: IMAGE.bootstrap,
      fs_type: 'rafs',
      config: document,
    })
    assert.equal(answer.status, 204, answer.text)
    return join(this.mnt, name)
  }

  read(): Promise<Buffer> {
    return readFile(join(this.image, FILE))
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]()
    await this.server.close()
  }

  async #push(): Promise<void> {
    const client = new RegistryClient({ credentials: anonymous() })
    const repository = client.repository(parseReference(`${this.server.host}/test/image:x`))
    for (const id of IMAGE.blobs) {
      const bytes = readFileSync(join(CARRIED_BLOBS, id))
      const open = async function* (): AsyncIterable<Uint8Array> {
        yield bytes
      }
      await repository.uploadBlob({ digest: digestOf(bytes), size: bytes.length, open })
    }
    await client.close()
  }
}

test('an image is read from a registry, each chunk once however many readers wait', {
  skip,
  timeout: 180_000,
}, async () => {
  await using rig = await Rig.mounted()
  // three: the fourth thread of the pool is needed by the registry, which runs in this process
  const reads = await Promise.all(Array.from({ length: 3 }, () => rig.read()))
  assert.ok(reads.every((bytes) => bytes.equals(reads[0] ?? assert.fail())))
  assert.deepEqual(await differencesSeenApart(rig.image, IMAGE.tree), [])
  const { read_count: requests, read_amount_total: bytes } = await rig.daemon.json('/api/v1/metrics/backend')
  const stored = readFileSync(join(CARRIED_BLOBS, IMAGE.blobs[0] ?? '')).length
  assert.ok(Number(bytes) <= stored, `${String(bytes)} bytes in ${String(requests)} requests, the blob has ${stored}`)
})

const FAULTS: ReadonlyArray<readonly [string, Fault]> = [
  ['dies before its answers', { kind: 'reset' }],
  ['cuts its bodies', { kind: 'cut', afterBytes: 100 }],
  ['stalls', { kind: 'stall', afterBytes: 100 }],
  ['answers 503', { kind: 'status', status: 503 }],
  ['asks to come again', { kind: 'status', status: 429, headers: { 'retry-after': '0' } }],
]
test('a registry that fails once costs a retry', { skip, timeout: 180_000 }, async (t) => {
  await using rig = await Rig.mounted()
  for (const [name, fault] of FAULTS)
    await t.test(`it ${name}`, async () => {
      const at = await rig.fresh()
      rig.server.fail({ match: { route: 'blob' }, fault })
      await readFile(join(at, FILE))
      assert.deepEqual(await differencesSeenApart(at, IMAGE.tree), [])
    })
})

const LIES: ReadonlyArray<readonly [string, Fault]> = [
  ['sends wrong bytes', { kind: 'wrong-bytes', at: 0 }],
  ['lies about ranges', { kind: 'wrong-range', shiftBytes: 4096 }],
  ['lies about lengths', { kind: 'wrong-length', deltaBytes: 10 }],
  ['answers 404', { kind: 'status', status: 404 }],
  ['answers 401', { kind: 'status', status: 401 }],
  ['answers 500', { kind: 'status', status: 500 }],
]
test('a registry that goes wrong again and again gives EIO, and afterwards the right bytes', {
  skip,
  timeout: 180_000,
}, async (t) => {
  await using rig = await Rig.mounted({ retry_limit: 1 })
  for (const [name, fault] of LIES)
    await t.test(`it ${name}`, async () => {
      const at = await rig.fresh()
      rig.server.fail({ match: { route: 'blob' }, times: 1000, fault })
      const read = await readFile(join(at, FILE)).catch((error: NodeJS.ErrnoException) => error)
      if (read instanceof Error) assert.equal(read.code, 'EIO')
      rig.server.clearFaults()
      assert.deepEqual(await differencesSeenApart(at, IMAGE.tree), [])
      if (!(read instanceof Error)) assert.deepEqual(read, await readFile(join(at, FILE)))
    })
  assert.ok(Number((await rig.daemon.json('/api/v1/daemon/events'))['total_errors']) > 0)
})

test('a dead registry gives EIO, and what was read before is still there', { skip, timeout: 180_000 }, async () => {
  await using rig = await Rig.mounted({ retry_limit: 1 })
  const before = await rig.read()
  await rig.server.close()
  assert.deepEqual(await rig.read(), before)
  await assert.rejects(readFile(join(rig.image, 'dup/a')), { code: 'EIO' })
  assert.equal(await rig.daemon.stop(), 0)
})

test('a cache that somebody damaged is fetched again, never shown', { skip, timeout: 180_000 }, async () => {
  await using rig = await Rig.mounted()
  const before = await rig.read()
  assert.equal(await rig.daemon.stop(), 0)
  const data = join(rig.cache, `${IMAGE.blobs[0]}.blob.data`)
  writeFileSync(data, Buffer.alloc(readFileSync(data).length, 0xa5))
  await rig.nydusd(ARGS)
  assert.deepEqual(await rig.read(), before)
  assert.deepEqual(await differencesSeenApart(rig.image, IMAGE.tree), [])
})

test('a damaged blob in a folder gives EIO until the right file is put in its place', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const [blobs, id = ''] = [scratch.folder('blobs'), ...IMAGE.blobs]
  const right = readFileSync(join(CARRIED_BLOBS, id))
  const put = (bytes: Uint8Array): void => {
    writeFileSync(join(blobs, 'new'), bytes)
    renameSync(join(blobs, 'new'), join(blobs, id))
  }
  put(Buffer.alloc(right.length, 0x55))
  writeFileSync(join(scratch.path, 'config.json'), localConfig(blobs, scratch.cache))
  await scratch.nydusd(ARGS)
  const path = join(scratch.mnt, 'image', FILE)
  await assert.rejects(readFile(path), { code: 'EIO' })
  put(right.subarray(0, 100))
  await assert.rejects(readFile(path), { code: 'EIO' })
  put(right)
  assert.equal((await readFile(path)).length, 65_536)
  assert.deepEqual(await differencesSeenApart(join(scratch.mnt, 'image'), IMAGE.tree), [])
})
