/** Cache directories that several tools fill and read: what prefetch leaves is what the builder writes, and the original's nydusd and ours use them in turn. NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { callApi, localConfig, Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'

const skip = whyNoFuse() ?? false
const root = join(import.meta.dirname, '..')

/** Runs our nydus-image from its sources. */
function nydusImage(args: readonly string[], cwd: string): void {
  const program = ['--disable-warning=ExperimentalWarning', join(root, 'src/cli/nydus-image/index.ts')]
  const { status, stderr } = spawnSync(process.execPath, [...program, ...args], { cwd, encoding: 'utf8' })
  assert.equal(status, 0, `${args.join(' ')}\n${stderr}`)
}

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
  for (let tries = 0; tries < 500; tries += 1) {
    if (existsSync(path) && readFileSync(path).equals(wanted)) return
    await sleep(20)
  }
  assert.fail(`${path} does not become what was built`)
}

for (const options of [[], ['--batch-size', '0x10000']])
  test(`a cache that prefetch filled has the bytes of one that was built, ${options.join(' ')}`, {
    skip,
    timeout: 60_000,
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

const peers = process.env['NYDUS_PEER_DIR']
const noPeer = skip === false ? peers === undefined && 'NYDUS_PEER_DIR is not set' : skip

/** The original's nydusd on `scratch.mnt`, until it is disposed of. */
class Peer implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #socket: string

  constructor(scratch: Scratch, options: readonly string[] = []) {
    this.#socket = join(scratch.path, 'peer.sock')
    const args = ['--bootstrap', 'image.boot', '--config', 'config.json', '--mountpoint', scratch.mnt]
    const more = ['--apisock', this.#socket, '--rlimit-nofile', '0', '--log-level', 'error']
    const stdio = ['ignore', 'inherit', 'inherit'] as const
    this.#child = spawn(join(peers ?? '', 'nydusd'), [...args, ...more, ...options], {
      cwd: scratch.path,
      stdio: [...stdio],
    })
  }

  async ready(): Promise<this> {
    for (let tries = 0; tries < 500; tries += 1) {
      assert.equal(this.#child.exitCode, null)
      try {
        const { text } = await callApi(this.#socket, 'GET', '/api/v1/daemon')
        if (text.includes('RUNNING')) return this
      } catch {
        await sleep(10) // the socket is not there yet
      }
    }
    throw new Error('the original does not run')
  }

  async requests(): Promise<number> {
    const { text } = await callApi(this.#socket, 'GET', '/api/v1/metrics/backend?id=/')
    return Number((JSON.parse(text) as Record<string, unknown>)['read_count'])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGTERM')
    if (this.#child.exitCode === null) await once(this.#child, 'close')
  }
}

/** Compares all files with their source, in another process: this one would wait for the daemon that it talks to. */
function compare(scratch: Scratch, tree: string, only = '.'): void {
  const { status, stdout, stderr } = spawnSync('diff', ['-r', join(tree, only), join(scratch.mnt, only)], {
    encoding: 'utf8',
    timeout: 30_000,
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
  ['encrypted by a constant', ['--features', 'blob-toc'], {}, { ...FILES, enable_convergent_encryption: true }],
]

for (const [name, options, cache, files] of SHARED)
  test(`a cache is used by the original and by ours in turn: ${name}`, { skip: noPeer, timeout: 60_000 }, async () => {
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
      await using peer = await new Peer(scratch).ready()
      compare(scratch, tree, 'deep')
      assert.ok((await peer.requests()) > 0)
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
      await using peer = await new Peer(scratch).ready()
      compare(scratch, tree)
      assert.ok((await peer.requests()) <= 1, 'nothing but the context of the blob is fetched again')
    }
    await scratch.nydusd(['--bootstrap', 'image.boot', '--config', 'config.json', '--log-level', 'error'])
    compare(scratch, tree)
  })

test('chunks are taken over from caches of the original, and by the original from ours, through one database', {
  skip: noPeer,
  timeout: 60_000,
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
    await using peer = await new Peer(scratch, dedup).ready()
    compare(scratch, tree)
    assert.ok((await peer.requests()) > 0)
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
  await using peer = await new Peer(scratch, dedup).ready()
  compare(scratch, tree)
  assert.ok((await peer.requests()) < 40, 'of what ours has nothing is fetched')
})
