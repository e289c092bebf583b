/** Cache directories that several tools fill and read: what prefetch leaves is what the builder writes, and the original's nydusd and ours use them in turn. NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { localConfig, Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { nydusImage } from './nydus-image.ts'
import { noPeer, PeerDaemon } from './peer-daemon.ts'

const skip = whyNoFuse() ?? false

/** A folder of files, small ones and some of several chunks. */
function makeTree(at: string): string {
  mkdirSync(join(at, 'deep/er'), { recursive: true })
  for (let index = 0; index < 30; index += 1)
    writeFileSync(join(at, 'deep/er', `${index}`), `file ${index}\n`.repeat(index * 300))
  writeFileSync(join(at, 'large'), Buffer.from(Uint32Array.from({ length: 700_000 }, (_, n) => n * 0x9e37_79b1).buffer))
  writeFileSync(join(at, 'text'), 'words and words\n'.repeat(90_000))
  return at
}

/** Waits until a file of the cache is as wanted. */
async function untilEqual(path: string, wanted: Buffer): Promise<void> {
  for (const deadline = Date.now() + 45_000; Date.now() < deadline; ) {
    if (existsSync(path) && readFileSync(path).equals(wanted)) return
    await sleep(20)
  }
  assert.fail(`${path} does not become what was built`)
}

for (const options of [[], ['--batch-size', '0x10000']])
  test(`a cache that prefetch filled has the bytes of one that was built, ${options.join(' ')}`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using scratch = new Scratch()
    const tree = makeTree(scratch.folder('tree'))
    const [blobs, built] = [scratch.folder('blobs'), scratch.folder('built')]
    const chunking = ['-l', 'error', ...options, '--chunk-size', '0x10000']
    nydusImage(['create', ...chunking, '--compressor', 'none', '-D', blobs, '-B', 'image.boot', tree], scratch.path)
    nydusImage(['create', ...chunking, '--blob-cache-dir', built, '-B', 'built.boot', tree], scratch.path)
    writeFileSync(
      join(scratch.path, 'config.json'),
      localConfig(blobs, scratch.cache, { fs_prefetch: { enable: true, prefetch_all: true } }),
    )
    const daemon = await scratch.nydusd(['--bootstrap', 'image.boot', '--config', 'config.json'])
    const names = readdirSync(built)
    const kinds = ['.blob.data', '.blob.data.chunk_map', '.blob.meta']
    assert.deepEqual(names.map((name) => name.replace(/^[0-9a-f]{64}/, '')).sort(), kinds)
    for (const name of names) await untilEqual(join(scratch.cache, name), readFileSync(join(built, name)))
    assert.equal(await daemon.stop(), 0)
  })

const skipPeer = skip === false ? (noPeer ?? false) : skip

/** The original's nydusd with the image and the configuration of the test. */
async function peerDaemon(scratch: Scratch, options: readonly string[] = []): Promise<PeerDaemon> {
  const common = ['--bootstrap', 'image.boot', '--config', 'config.json', '--log-level', 'error']
  return await PeerDaemon.start(scratch, [...common, ...options])
}

async function requestsOf(peer: PeerDaemon): Promise<number> {
  return Number((await peer.json('/api/v1/metrics/backend?id=/'))['read_count'])
}

/** Compares all files with their source, in another process: this one would wait for the daemon that it talks to. */
function compare(scratch: Scratch, tree: string, only = '.'): void {
  const { status, stdout, stderr } = spawnSync('diff', ['-r', join(tree, only), join(scratch.mnt, only)], {
    encoding: 'utf8',
    timeout: 120_000,
  })
  assert.equal(status, 0, `${stdout}${stderr}`)
}

const FILES = {
  enable_encryption: true,
  encryption_key: '00112233445566778899aabbccddeeff0f1e2d3c4b5a69788796a5b4c3d2e1f0',
}
const SHARED: ReadonlyArray<readonly [name: string, options: readonly string[], cache: object, files: object]> = [
  ['plain', [], {}, {}],
  ['plain v5', ['--fs-version', '5'], {}, {}],
  ['compressed', [], { compressed: true }, {}],
  ['compressed v5', ['--fs-version', '5', '--compressor', 'lz4_block'], { compressed: true }, {}],
  ['compressed with a table of contents', ['--features', 'blob-toc'], { compressed: true }, {}],
  ['encrypted', [], {}, FILES],
  ['encrypted v5', ['--fs-version', '5', '--aligned-chunk'], {}, FILES],
  [
    'encrypted by digests v5',
    ['--fs-version', '5', '--aligned-chunk'],
    {},
    { ...FILES, enable_convergent_encryption: true },
  ],
  ['encrypted by a constant, without digests in the blob', [], {}, { ...FILES, enable_convergent_encryption: true }],
  ['encrypted by a constant', ['--features', 'blob-toc'], {}, { ...FILES, enable_convergent_encryption: true }],
  [
    'encrypted by digests v6, which validation has loaded',
    ['--features', 'blob-toc'],
    { validate: true },
    { ...FILES, enable_convergent_encryption: true },
  ],
]

for (const [name, options, cache, files] of SHARED)
  test(`a cache is used by the original and by ours in turn: ${name}`, {
    skip: skipPeer,
    timeout: 180_000,
  }, async () => {
    await using scratch = new Scratch()
    const tree = makeTree(scratch.folder('tree'))
    const blobs = scratch.folder('blobs')
    nydusImage(
      ['create', '-l', 'error', ...options, '--chunk-size', '0x10000', '-D', blobs, '-B', 'image.boot', tree],
      scratch.path,
    )
    const config = {
      device: {
        backend: { type: 'localfs', config: { dir: blobs } },
        cache: { type: 'blobcache', ...cache, config: { work_dir: scratch.cache, ...files } },
      },
      mode: 'direct',
      amplify_io: 0,
    }
    writeFileSync(join(scratch.path, 'config.json'), JSON.stringify(config))
    {
      await using peer = await peerDaemon(scratch)
      compare(scratch, tree, 'deep')
      assert.ok((await requestsOf(peer)) > 0)
    }
    const daemon = await scratch.nydusd([
      '--bootstrap',
      'image.boot',
      '--config',
      'config.json',
      '--log-level',
      'error',
    ])
    compare(scratch, tree, 'deep')
    const { read_amount_total: before } = await daemon.json('/api/v1/metrics/backend')
    assert.ok(Number(before) < 20_000, `of what the original left, ${String(before)} bytes are fetched again`)
    compare(scratch, tree)
    assert.equal(await daemon.stop(), 0)
    {
      await using peer = await peerDaemon(scratch)
      compare(scratch, tree)
      assert.ok((await requestsOf(peer)) <= 1, 'nothing but the context of the blob is fetched again')
    }
    await scratch.nydusd(['--bootstrap', 'image.boot', '--config', 'config.json', '--log-level', 'error'])
    compare(scratch, tree)
  })

test('chunks are taken over from caches of the original, and by the original from ours, through one database', {
  skip: skipPeer,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const tree = makeTree(scratch.folder('tree'))
  const blobs = scratch.folder('blobs')
  const options = ['-l', 'error', '--fs-version', '5', '--chunk-size', '0x10000']
  nydusImage(['create', ...options, '-D', blobs, '-B', 'image.boot', tree], scratch.path)
  const useCache = (name: string): void =>
    writeFileSync(join(scratch.path, 'config.json'), localConfig(blobs, scratch.folder(name), { amplify_io: 0 }))
  const dedup = ['--dedup-db', join(scratch.path, 'cas.db')]
  useCache('theirs')
  {
    await using peer = await peerDaemon(scratch, dedup)
    compare(scratch, tree)
    assert.ok((await requestsOf(peer)) > 0)
    await sleep(500) // it records in the background
  }
  useCache('ours')
  const args = ['--bootstrap', 'image.boot', '--config', 'config.json', '--log-level', 'error', ...dedup]
  const daemon = await scratch.nydusd(args)
  compare(scratch, tree)
  assert.equal((await daemon.json('/api/v1/metrics/backend'))['read_count'], 0)
  rmSync(join(scratch.path, 'theirs'), { recursive: true })
  assert.equal(await daemon.stop(), 0) // it forgets what is gone; the original looks at the first place only
  useCache('again')
  await using peer = await peerDaemon(scratch, dedup)
  compare(scratch, tree)
  assert.ok((await requestsOf(peer)) < 40, 'of what ours has nothing is fetched')
})
