/** Images of ours under the original's nydusd and its check, for every way of storing chunks; NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { whyNoFuse } from '../src/kernel/index.ts'
import { localConfig, noSharedFixtures, Scratch, SHARED_FIXTURES, treeDifferences } from '../src/daemon/testing.ts'
import { nydusImage } from './nydus-image.ts'
import { noPeer, PeerDaemon, peers } from './peer-daemon.ts'

const skip = whyNoFuse() ?? (noSharedFixtures === false ? noPeer : noSharedFixtures) ?? false

const CASES: ReadonlyArray<readonly string[]> = [
  ['--batch-size', '0x40000'],
  ['--batch-size', '4096', '--chunk-size', '4096', '--compressor', 'lz4_block', '--digester', 'sha256'],
  ['--batch-size', '0x10000', '--compressor', 'none', '--features', 'blob-toc', '--encrypt'],
  ['--encrypt'],
]

/** The original's nydusd with an image. */
async function mounted(scratch: Scratch, bootstrap: string, blobs: string): Promise<PeerDaemon> {
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, localConfig(blobs, scratch.cache))
  return await PeerDaemon.start(scratch, ['--bootstrap', bootstrap, '--config', config])
}

function source(scratch: Scratch, name: string): string {
  const path = join(scratch.path, name)
  const stored = join(SHARED_FIXTURES, 'sources', name)
  writeFileSync(path, existsSync(stored) ? readFileSync(stored) : gunzipSync(readFileSync(`${stored}.gz`)))
  return path
}

for (const args of CASES) {
  test(`the original mounts and checks what is built with ${args.join(' ')}`, { skip, timeout: 180_000 }, async () => {
    await using scratch = new Scratch()
    const blobs = scratch.folder('blobs')
    const bootstrap = join(scratch.path, 'bootstrap')
    const tar = source(scratch, 'core.tar')
    nydusImage(['create', '-l', 'error', '-t', 'tar-rafs', ...args, '-D', blobs, '-B', bootstrap, tar], scratch.path)
    {
      await using peer = await mounted(scratch, bootstrap, blobs)
      const differences = treeDifferences(scratch.mnt, join(SHARED_FIXTURES, 'trees/core.tar.v6.jsonl'))
      // It shows the time of the mount for 0.
      assert.deepEqual(
        differences.filter((line) => !/: mtime is \d+, wanted 0$/.test(line)),
        [],
        peer.log,
      )
    }
    const check = ['check', '-l', 'error', '-D', blobs, bootstrap]
    const { status, stderr } = spawnSync(join(peers, 'nydus-image'), check, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    nydusImage(check, scratch.path)
  })
}

test('the original reads encrypted batches that are smaller than AES-XTS takes', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const [blobs, tree] = [scratch.folder('blobs'), scratch.folder('tree')]
  const bootstrap = join(scratch.path, 'bootstrap')
  for (let size = 1; size < 40; size += 1) {
    writeFileSync(join(tree, `${size}`), Buffer.alloc(size, `${size}`))
    // Stored alone, so it ends the batch before it.
    writeFileSync(join(tree, `${size}.large`), Buffer.alloc(2048 + size, `${size}`))
  }
  const options = ['-l', 'error', '--encrypt', '--batch-size', '4096', '--compressor', 'lz4_block']
  nydusImage(['create', ...options, '-D', blobs, '-B', bootstrap, tree], scratch.path)
  await using _peer = await mounted(scratch, bootstrap, blobs)
  for (const name of readdirSync(tree))
    assert.ok(readFileSync(join(scratch.mnt, name)).equals(readFileSync(join(tree, name))), name)
})

test('the original mounts an image of which there is nothing but the cache that was built', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const bootstrap = join(scratch.path, 'bootstrap')
  const tar = source(scratch, 'mini.tar')
  const places = ['--blob-cache-dir', scratch.cache, '-B', bootstrap]
  nydusImage(['create', '-l', 'error', '-t', 'tar-rafs', '--batch-size', '0x1000', ...places, tar], scratch.path)
  const nothing = scratch.folder('nothing')
  // It opens the blob, though it has no need to read it.
  const [data] = readdirSync(scratch.cache)
  writeFileSync(join(nothing, data?.replace('.blob.data', '') ?? ''), '')
  await using peer = await mounted(scratch, bootstrap, nothing)
  const differences = treeDifferences(scratch.mnt, join(SHARED_FIXTURES, 'trees/mini.tar.v6.jsonl'))
  assert.deepEqual(
    differences.filter((line) => !/: mtime is \d+, wanted 0$/.test(line)),
    [],
    peer.log,
  )
})

test('the original mounts an image over an eStargz layer', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const [blobs, bootstrap] = [scratch.folder('blobs'), join(scratch.path, 'bootstrap')]
  const layer = readFileSync(join(SHARED_FIXTURES, 'sources/lower.estargz.tar.gz'))
  const id = createHash('sha256').update(layer).digest('hex')
  writeFileSync(join(blobs, id), layer)
  const of = ['--blob-id', id, '--blob-data-size', layer.length.toString(16)]
  const toc = join(SHARED_FIXTURES, 'sources/lower.estargz.toc.json')
  nydusImage(['create', '-l', 'error', '-t', 'estargztoc-ref', ...of, '-D', blobs, '-B', bootstrap, toc], scratch.path)
  await using peer = await mounted(scratch, bootstrap, blobs)
  const differences = treeDifferences(scratch.mnt, join(SHARED_FIXTURES, 'trees/lower.tar.v6.jsonl'))
  // JSON has no bytes that are no UTF-8, and the writer of the table rounded times.
  assert.deepEqual(
    differences.filter((line) => !/%|nonutf8|^\/mtimes\/|^\/names: size/.test(line)),
    [],
    peer.log,
  )
})
