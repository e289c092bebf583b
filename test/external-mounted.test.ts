/** Images of external files, mounted: their data lies in other places, as it is, and only checksums of it are in the image. */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { crc32c } from '../src/codec/index.ts'
import { Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { nydusImage } from './nydus-image.ts'
import { noPeer, PeerDaemon } from './peer-daemon.ts'

const skip = whyNoFuse() ?? false
const ID = 'e'.repeat(64)
const DATA = Buffer.from(Uint32Array.from({ length: 300_000 }, (_, at) => at * 0x9e37_79b1).buffer)
const CHUNK = 0x4_0000

/** A folder with a file that is external, whose data starts at byte 4096 of a blob. */
function build(scratch: Scratch, chunkSize = CHUNK): { bootstrap: string; blob: Buffer } {
  const tree = scratch.folder('tree')
  mkdirSync(join(tree, 'models'))
  writeFileSync(join(tree, 'models/weights'), DATA)
  writeFileSync(join(tree, 'models/readme'), 'beside it')
  const sums = Array.from({ length: Math.ceil(DATA.length / chunkSize) }, (_, at) =>
    crc32c(DATA.subarray(at * chunkSize, (at + 1) * chunkSize)),
  )
  const size = DATA.length + 4096
  const values = `type=external blob_index=0 blob_id=${ID} chunk_size=${chunkSize} chunk_0_compressed_offset=4096 compressed_size=${size}`
  const crcs = ` crcs=${sums.map((sum) => `0x${sum.toString(16)}`).join(',')}`
  writeFileSync(join(scratch.path, '.nydusattributes'), `/models/weights ${values}${crcs}\n`)
  const to = ['-B', 'image.boot', '-b', 'blob', '--external-blob', 'external.blob', '--attributes', '.nydusattributes']
  const args = ['create', '-l', 'error', '--fs-version', '5', ...to, tree]
  nydusImage(args, scratch.path)
  assert.ok(existsSync(join(scratch.path, 'image.external')))
  return { bootstrap: 'image.external', blob: Buffer.concat([Buffer.alloc(4096), DATA]) }
}

function configure(scratch: Scratch, external: readonly object[], blobs = scratch.path): void {
  const document = {
    version: 2,
    backend: { type: 'localfs', localfs: { dir: blobs } },
    external_backends: external,
    cache: { type: 'blobcache', filecache: { work_dir: scratch.cache } },
    rafs: {},
  }
  writeFileSync(join(scratch.path, 'config.json'), JSON.stringify(document))
}

const ARGS = ['--config', 'config.json', '--log-level', 'error', '--bootstrap']

test('external data is read from where the configuration says, and from the cache after that', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const { bootstrap, blob } = build(scratch)
  const elsewhere = scratch.folder('elsewhere')
  writeFileSync(join(elsewhere, ID), blob)
  const empty = scratch.folder('empty')
  configure(scratch, [
    { type: 'localfs', config: { dir: empty }, patch: {} },
    { type: 'localfs', config: { dir: empty }, patch: { dir: elsewhere } },
  ])
  const daemon = await scratch.nydusd([...ARGS, bootstrap])
  const file = join(scratch.mnt, 'models/weights')
  assert.ok((await readFile(file)).equals(DATA))
  assert.equal(await daemon.stop(), 0)
  writeFileSync(join(elsewhere, ID), Buffer.alloc(blob.length))
  const again = await scratch.nydusd([...ARGS, bootstrap])
  assert.ok((await readFile(file)).equals(DATA))
  assert.equal((await again.json('/api/v1/metrics/backend'))['read_count'], 0)
})

test('external data is read from the image’s own backend too, also a folder of alternatives', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const { bootstrap, blob } = build(scratch)
  writeFileSync(join(scratch.path, ID), blob)
  configure(scratch, [])
  await scratch.nydusd([...ARGS, bootstrap])
  assert.ok((await readFile(join(scratch.mnt, 'models/weights'))).equals(DATA))
})

test('data that is nowhere, or in a place of an unknown kind, is an error of the mount that names it', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const { bootstrap } = build(scratch)
  const rejected = async (external: readonly object[], wanted: RegExp): Promise<void> => {
    configure(scratch, external)
    await assert.rejects(scratch.nydusd([...ARGS, bootstrap]), wanted)
  }
  await rejected([], new RegExp(`external blob ${ID} is nowhere.*external_backends`, 's'))
  await rejected([{ type: 'carrier-pigeon', config: {}, patch: {} }], /external_backends\[0\]\.type.*"carrier-pigeon"/s)
  await rejected(
    [{ type: 'localfs', config: { dir: 's3cret', alt_dirs: '' }, patch: { dir: '' } }],
    /"dir" or "blob_file"/,
  )
  await rejected([{ type: 'registry', config: { repo: 'a/b' }, patch: {} }], /external_backends\[0\]": "host"/)
})

test('data that has changed gives EIO, and is read when it is right again', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const { bootstrap, blob } = build(scratch)
  const at = join(scratch.path, ID)
  const damaged = Buffer.from(blob)
  damaged[4096 + CHUNK + 17] = (damaged[4096 + CHUNK + 17] ?? 0) ^ 1
  writeFileSync(at, damaged)
  configure(scratch, [])
  await scratch.nydusd([...ARGS, bootstrap])
  const file = join(scratch.mnt, 'models/weights')
  await assert.rejects(readFile(file), { code: 'EIO' })
  writeFileSync(at, blob)
  assert.ok((await readFile(file)).equals(DATA))
})

test('the original reads the same image, and goes on with our cache', {
  skip: skip === false ? (noPeer ?? false) : skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  // With chunks of another size than the image's its threads die.
  const { bootstrap, blob } = build(scratch, 1 << 20)
  writeFileSync(join(scratch.path, ID), blob)
  configure(scratch, [])
  const daemon = await scratch.nydusd([...ARGS, bootstrap])
  const file = join(scratch.mnt, 'models/weights')
  assert.ok((await readFile(file)).equals(DATA))
  assert.equal(await daemon.stop(), 0)
  writeFileSync(join(scratch.path, ID), Buffer.alloc(blob.length, 1))
  await using _peer = await PeerDaemon.start(scratch, [...ARGS, bootstrap])
  assert.ok(readFileSync(file).equals(DATA))
})
