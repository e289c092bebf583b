/** What others do to a daemon's surroundings while it runs: its connection, its mount point, its cache. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readdirSync, readSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { readMountInfo, unmount, whyNoFuse } from '../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, differencesSeenApart, localConfig, Scratch, type TestDaemon } from './testing.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const FILE = 'sizes/65536'
const ARGS = ['--bootstrap', IMAGE.bootstrap, '--config', 'config.json']

async function mounted(cache: Record<string, unknown> = {}): Promise<[Scratch, TestDaemon]> {
  const scratch = new Scratch()
  const document = JSON.parse(localConfig(CARRIED_BLOBS, scratch.cache)) as { device: { cache: object } }
  Object.assign(document.device.cache, cache)
  writeFileSync(join(scratch.path, 'config.json'), JSON.stringify(document))
  return [scratch, await scratch.nydusd(ARGS)]
}

test('the kernel aborts the connection: the daemon ends, and the next one mounts at the same place', {
  skip,
  timeout: 180_000,
}, async () => {
  const [made, daemon] = await mounted()
  await using scratch = made
  const right = await readFile(join(scratch.mnt, FILE))
  assert.equal(await isMounted(scratch.mnt), true)
  const control = scratch.folder('control')
  execFileSync('mount', ['-t', 'fusectl', 'none', control])
  try {
    const { minor } = deviceOf(scratch.mnt)
    writeFileSync(join(control, String(minor), 'abort'), '1')
  } finally {
    await unmount(control, true)
  }
  assert.equal(await daemon.ended(), 0)
  assert.equal(await isMounted(scratch.mnt), false)
  await scratch.nydusd(ARGS, {}, join(scratch.path, 'second.sock'))
  assert.deepEqual(await readFile(join(scratch.mnt, FILE)), right)
})

test('somebody unmounts the mount point: the daemon ends', { skip, timeout: 180_000 }, async () => {
  const [made, daemon] = await mounted()
  await using scratch = made
  await unmount(scratch.mnt, false)
  assert.equal(await daemon.ended(), 0)
  assert.equal(await isMounted(scratch.mnt), false)
})

test('bits of the cache turn under the mount: with "validate" no reader sees them', {
  skip,
  timeout: 180_000,
}, async () => {
  const [made] = await mounted({ validate: true })
  await using scratch = made
  const path = join(scratch.mnt, FILE)
  const right = await readFile(path)
  const data = openSync(join(scratch.cache, `${IMAGE.blobs[0]}.blob.data`), 'r+')
  const byte = Buffer.alloc(1)
  for (let at = 0; at < statSync(join(scratch.cache, `${IMAGE.blobs[0]}.blob.data`)).size; at += 1000) {
    readSync(data, byte, 0, 1, at)
    writeSync(data, Buffer.from([(byte[0] ?? 0) ^ 0x10]), 0, 1, at)
  }
  closeSync(data)
  await using file = await open(path, constants.O_RDONLY | constants.O_DIRECT) // past the kernel's pages
  const bytes = Buffer.alloc(right.length)
  await file.read(bytes, 0, bytes.length, 0)
  assert.deepEqual(bytes, right)
})

test('two daemons fill one cache at the same time: both have every byte, and so has the next', {
  skip,
  timeout: 180_000,
}, async () => {
  const [made, first] = await mounted()
  await using scratch = made
  const other = scratch.folder('other')
  const second = await scratch.nydusd([...ARGS, '--mountpoint', other], {}, join(scratch.path, 'second.sock'))
  try {
    const trees = await Promise.all([scratch.mnt, other].map((at) => differencesSeenApart(at, IMAGE.tree)))
    assert.deepEqual(trees, [[], []])
  } finally {
    assert.equal(await second.stop(), 0)
  }
  assert.equal(await first.stop(), 0)
  await scratch.nydusd(ARGS)
  assert.deepEqual(await differencesSeenApart(scratch.mnt, IMAGE.tree), [])
  assert.ok(readdirSync(scratch.cache).length > 0)
})

async function isMounted(at: string): Promise<boolean> {
  return (await readMountInfo()).some((entry) => entry.at === at)
}

/** The device number of a mount; the kernel names its connection by the minor. */
function deviceOf(at: string): { readonly minor: bigint } {
  const { dev } = statSync(at, { bigint: true })
  return { minor: (dev & 0xffn) | ((dev >> 12n) & 0xfff00n) }
}
