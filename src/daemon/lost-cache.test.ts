/** The cache directory under a running daemon in the hands of others, and at its limit. */
import assert from 'node:assert/strict'
import { constants, existsSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import { callApi, CARRIED_BLOBS, carriedImage, differencesSeenApart, localConfig, Scratch } from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const ARGS = ['--bootstrap', IMAGE.bootstrap, '--config', 'config.json', '--log-level', 'error']

async function mounted(files: Record<string, unknown> = {}): Promise<Scratch> {
  const scratch = new Scratch()
  const document = JSON.parse(localConfig(CARRIED_BLOBS, scratch.cache)) as { device: { cache: { config: object } } }
  document.device.cache.config = { work_dir: scratch.cache, ...files }
  writeFileSync(join(scratch.path, 'config.json'), JSON.stringify(document))
  await scratch.nydusd(ARGS)
  return scratch
}

/** Past the kernel's pages: the daemon is asked each time. */
async function readDirectly(path: string): Promise<Buffer> {
  await using file = await open(path, constants.O_RDONLY | constants.O_DIRECT)
  const bytes = Buffer.alloc(128 * 1024)
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0)
  return bytes.subarray(0, bytesRead)
}

test('a cache file that is cut, cut and grown, or deleted under the mount gives right bytes', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = await mounted()
  const path = join(scratch.mnt, 'sizes/65536')
  const right = await readFile(path)
  const data = join(scratch.cache, `${IMAGE.blobs[0]}.blob.data`)
  const { size } = statSync(data)
  assert.deepEqual(await readDirectly(path), right)
  truncateSync(data, 100)
  assert.deepEqual(await readDirectly(path), right)
  for (const cut of [0, 4097, size >> 1]) {
    truncateSync(data, cut)
    truncateSync(data, size)
    // The kernel has told of it when the thread that answers the API has waited for something once more.
    for (let calls = 0; calls < 2; calls += 1) await callApi(join(scratch.path, 'api.sock'), 'GET', '/api/v1/daemon')
    assert.deepEqual(await readDirectly(path), right, `cut at ${cut}`)
  }
  rmSync(scratch.cache, { recursive: true })
  assert.deepEqual(await readDirectly(path), right)
  assert.deepEqual(await differencesSeenApart(scratch.mnt, IMAGE.tree), [])
})

test('a cache at its limit lets go of what nobody has mounted, and all files are right', {
  skip,
  timeout: 180_000,
}, async () => {
  await using scratch = await mounted({ size_limit: 300_000 })
  const unused = join(scratch.cache, `${'a'.repeat(64)}.blob.data`)
  writeFileSync(unused, Buffer.alloc(1 << 20, 1))
  assert.deepEqual(await differencesSeenApart(scratch.mnt, IMAGE.tree), [])
  assert.equal(existsSync(unused), false)
  const taken = readdirSync(scratch.cache).reduce(
    (sum, name) => sum + statSync(join(scratch.cache, name)).blocks * 512,
    0,
  )
  assert.ok(taken < 2 << 20, `${taken} bytes are taken`)
})
