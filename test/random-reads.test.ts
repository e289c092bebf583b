/** Random trees, built with random options and mounted with random configurations: what many readers get at random places, in random ways, is what the tree has. */
import assert from 'node:assert/strict'
import { constants, readFileSync, truncateSync, readdirSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { forSeeds, once, oneOf, PROPERTY_LIMITS, type Random, randomBytes, randomOf } from './random.ts'
import { buildInto, randomOptions } from './random-images.ts'
import { anyName, pathsOf, plant, randomTree, type TreeNode } from './random-tree.ts'
import { assertSamePaths, linesOf, shownFolder } from './shown-paths.ts'

const skip = whyNoFuse() ?? (process.getuid?.() === 0 ? false : 'needs root to make devices')
const READERS = 6
const READS = 60

/** A cache of any kind, any size of requests, and prefetch of any kind. */
function randomConfig(random: Random, blobs: string, cache: string, version: number): object {
  const key = { enable_encryption: true, encryption_key: randomBytes(random, 32).toString('hex') }
  const files = oneOf(random, [
    {},
    {},
    key,
    { ...key, enable_convergent_encryption: true },
    { size_limit: 1 + random(200_000) },
  ])
  const isEncrypted = 'enable_encryption' in files
  const [isNone, isEager] = [version === 5 && once(random, 5), once(random, 2)]
  return {
    version: 2,
    backend: { type: 'localfs', localfs: { dir: blobs } },
    cache: isNone
      ? { type: 'dummycache' }
      : {
          type: 'blobcache',
          compressed: !isEncrypted && once(random, 4),
          validate: once(random, 4),
          filecache: { work_dir: cache, ...files },
        },
    rafs: {
      batch_size: oneOf(random, [0, 4096, 0x1_0000, 1 << 20, 10 << 20]),
      prefetch: {
        enable: isEager,
        threads: 1 + random(8),
        prefetch_all: once(random, 2),
        stream_prefetch: once(random, 3),
      },
    },
  }
}

/** A file's bytes from some place on, past the kernel's pages or through them. */
async function readSome(random: Random, path: Buffer, content: Buffer): Promise<void> {
  const isDirect = once(random, 2)
  await using file = await open(path, constants.O_RDONLY | (isDirect ? constants.O_DIRECT : 0))
  const at = isDirect ? 512 * random(content.length / 512 + 1) : random(content.length + 2)
  const into = Buffer.alloc(isDirect ? 512 * (1 + random(300)) : 1 + random(60_000))
  const { bytesRead } = await file.read(into, 0, into.length, at)
  const wanted = content.subarray(at, at + into.length)
  if (!into.subarray(0, bytesRead).equals(wanted))
    assert.fail(`${path.toString('latin1')} at ${at}: ${bytesRead} bytes, which are not the ${wanted.length} wanted`)
}

async function readMany(random: Random, mnt: string, tree: TreeNode): Promise<void> {
  const files = [...pathsOf(tree)].filter(([, { type }]) => type === 'file')
  if (files.length === 0) return
  const reader = async (own: Random): Promise<void> => {
    for (let count = 0; count < READS; count += 1) {
      const [path, { content }] = files[own(files.length)] ?? assert.fail('no file')
      await readSome(own, Buffer.concat([Buffer.from(mnt), Buffer.from(path, 'latin1')]), content)
    }
  }
  await Promise.all(Array.from({ length: READERS }, () => reader(randomOf(random(2 ** 31)))))
}

function withoutRoot(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.startsWith('{"path":"/",'))
}

/** Between two lives files of a cache are cut or changed. */
function damage(random: Random, cache: string): void {
  for (const name of readdirSync(cache)) {
    const path = join(cache, name)
    const bytes = readFileSync(path)
    if (once(random, 3)) truncateSync(path, random(bytes.length + 1))
    else if (once(random, 2)) writeFileSync(path, bytes.fill(random(256), random(bytes.length + 1)))
  }
}

test('what is read of a mounted image is what was built, whatever the image, the cache and the readers are', {
  skip,
  timeout: 300_000,
  ...PROPERTY_LIMITS,
}, async () => {
  await forSeeds(4, async (random) => {
    await using scratch = new Scratch()
    const linked = new Set(['file'] as const)
    const types = ['directory', 'file', 'file', 'file', 'symlink', 'char', 'fifo'] as const
    const tree = randomTree(random, { nodes: 10 + random(40), types, name: anyName, linked, xattrs: true })
    const source = scratch.folder('source')
    plant(tree, source)
    const options = randomOptions(random, tree)
    const image = scratch.folder('image')
    const { path } = await buildInto(image, { kind: 'directory', path: source }, options)
    const config = randomConfig(random, join(image, 'blobs'), scratch.cache, options.version)
    writeFileSync(join(scratch.path, 'config.json'), JSON.stringify(config))
    for (let life = 0; life < 2; life += 1) {
      const daemon = await scratch.nydusd(['--bootstrap', path, '--config', 'config.json', '--log-level', 'error'])
      await readMany(random, scratch.mnt, tree)
      const shown = withoutRoot(linesOf(shownFolder(scratch.mnt)))
      assertSamePaths(shown, withoutRoot(linesOf(shownFolder(source))), JSON.stringify(config))
      await daemon.stop()
      damage(random, scratch.cache)
    }
  })
})
