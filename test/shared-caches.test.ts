/** Cache directories that several tools fill and read: what prefetch leaves is what the builder writes, and the original's nydusd and ours use them in turn. NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { localConfig, Scratch } from '../src/daemon/testing.ts'
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
