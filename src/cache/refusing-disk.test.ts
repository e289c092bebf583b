import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { mountTmpfs, unmount } from '../kernel/index.ts'
import { openChunkCache } from './index.ts'
import { chunk, CHUNK, content, ID } from './testing.ts'
import { open, code } from './test-chunk-cache.ts'

const root = process.getuid?.() === 0 ? false : 'needs root to mount a small tmpfs'

/** Runs `body` in a tmpfs of that size; skips where mounts are not allowed. */
async function inTmpfs(t: TestContext, bytes: number, body: (at: string) => Promise<void>): Promise<void> {
  const at = mkdtempSync(join(tmpdir(), 'nydus-cache-tmpfs-'))
  try {
    try {
      await mountTmpfs(at, bytes)
    } catch (error) {
      t.skip(`no tmpfs mount here: ${error instanceof Error ? error.message : String(error)}`)
      return
    }
    await body(at)
  } finally {
    await unmount(at, true)
    rmSync(at, { recursive: true, force: true })
  }
}

test('a full disk: the store says NO_SPACE, nothing is marked, what is there stays readable, space helps', {
  skip: root,
}, async (t) => {
  await inTmpfs(t, 64 * CHUNK, async (at) => {
    const cache = await openChunkCache({ directory: at, blobId: ID, chunkCount: 1000, uncompressedSize: 1000 * CHUNK })
    try {
      let full = 0
      await assert.rejects(async () => {
        for (; full < 1000; full++) await cache.store(chunk(full), content(full))
      }, code('NO_SPACE'))
      assert.ok(full > 10, `${full} chunks fitted`)
      assert.deepEqual([cache.claimed(full), cache.isTrusted(full)], [false, false])
      const into = new Uint8Array(CHUNK)
      assert.equal(await cache.readUnverified((full - 1) * CHUNK, into), true)
      assert.deepEqual(Buffer.from(into), Buffer.from(content(full - 1)))
      await makeRoom(at)
      await cache.store(chunk(full), content(full))
      assert.equal(cache.claimed(full), true)
    } finally {
      await cache.close()
    }
  })
})

/** Gives a full tmpfs more room. */
async function makeRoom(at: string): Promise<void> {
  const { execFileSync } = await import('node:child_process')
  execFileSync('mount', ['-o', `remount,size=${200 * CHUNK}`, at])
}

test('a cache cannot be made on a full disk: NO_SPACE, and nothing half-made is left', { skip: root }, async (t) => {
  await inTmpfs(t, 4 * CHUNK, async (at) => {
    try {
      writeFileSync(join(at, 'ballast'), Buffer.alloc(8 * CHUNK))
    } catch {
      // full now, as wanted
    }
    await assert.rejects(open(t, at, 100_000), code('NO_SPACE'))
    assert.deepEqual(
      readdirSync(at).filter((name) => name.includes('tmp')),
      [],
    )
  })
})

test('a filled cache on a read-only file system is read; stores say READ_ONLY', { skip: root }, async (t) => {
  await inTmpfs(t, 400 * CHUNK, async (at) => {
    const filler = await openChunkCache({ directory: at, blobId: ID, chunkCount: 42, uncompressedSize: 42 * CHUNK })
    await filler.store(chunk(4), content(4))
    await filler.close()
    const { execFileSync } = await import('node:child_process')
    execFileSync('mount', ['-o', 'remount,ro', at])
    const cache = await openChunkCache({ directory: at, blobId: ID, chunkCount: 42, uncompressedSize: 42 * CHUNK })
    try {
      assert.deepEqual([cache.claimed(4), cache.claimed(5)], [true, false])
      assert.equal(await cache.readUnverified(4 * CHUNK, new Uint8Array(CHUNK)), true)
      await assert.rejects(cache.store(chunk(5), content(5)), code('READ_ONLY'))
      cache.distrust(4)
      assert.equal(cache.claimed(4), false)
    } finally {
      await cache.close()
    }
    await assert.rejects(open(t, at, 42, { blobId: 'ab' }), code('READ_ONLY'))
  })
})
