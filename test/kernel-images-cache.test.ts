/** Images that the kernel shows, and the cache whose files they are. */
import assert from 'node:assert/strict'
import { closeSync, existsSync, openSync, readFileSync, statSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { ChunkInfo, type VerifiedChunk } from '../src/blob/index.ts'
import { openChunkCache, trimCache } from '../src/cache/index.ts'
import { treeDifferences } from '../src/daemon/testing.ts'
import { IMAGE, OTHER_IMAGE, PLENTY_MS } from './daemons/field.ts'
import { BLOB, flip, lent, skipReason, startField } from './daemons/kernel-field.ts'

const skip = await skipReason()
const options = { skip, timeout: PLENTY_MS }

test(
  'a byte that turned in the cache before the first check: nydusd serves the image, the log says why, and nothing stays pinned',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    flip(field.cached('.blob.data'), 5000)
    const user = field.container('one')
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await field.shown.lend(request, user), undefined)
      await field.shown.settled()
    }
    const warnings = field.lines.filter((line) => line.startsWith('warn'))
    assert.equal(warnings.length, 1, 'the same file is not read again')
    assert.match(warnings[0] ?? '', /served by nydusd.*chunk \d+ of blob [0-9a-f]{64}/)
    assert.equal(existsSync(field.cached('.blob.pins')), false)
    assert.deepEqual(field.erofs, [])
    flip(field.cached('.blob.data'), 5000)
    assert.deepEqual(treeDifferences(await lent(started, user), IMAGE.tree), [])
  },
)

test('a file that changed since it was verified is verified again before the next mount', options, async () => {
  await using started = await startField()
  const { field, request } = started
  const user = field.container('one')
  await lent(started, user)
  await field.shown.giveBack(user)
  flip(field.cached('.blob.data'), 5000)
  assert.equal(await field.shown.lend(request, user), undefined)
  await field.shown.settled()
  assert.equal(await field.shown.lend(request, user), undefined)
  assert.match(field.lines.join('\n'), /warn .*the cache does not have what the image wants/)
})

test('a chunk that a daemon found wrong since it was verified is verified again', options, async () => {
  await using started = await startField()
  const { field, request } = started
  const user = field.container('one')
  const at = await lent(started, user)
  await field.shown.giveBack(user)
  const map = readFileSync(field.cached('.blob.data.chunk_map'))
  const fd = openSync(field.cached('.blob.data.chunk_map'), 'r+')
  writeSync(fd, new Uint8Array(4), 0, 4, 12) // "all ready"
  writeSync(fd, Uint8Array.of((map[4096] ?? 0) & 0x7f), 0, 1, 4096)
  assert.equal(await field.shown.lend(request, user), undefined)
  await field.shown.settled()
  assert.equal(await field.shown.lend(request, user), undefined)
  writeSync(fd, Uint8Array.of(map[4096] ?? 0), 0, 1, 4096)
  closeSync(fd)
  assert.equal(await field.shown.lend(request, user), at)
})

test('an image that is not all in the cache is not shown, and is when it is', options, async () => {
  await using started = await startField()
  const { field, request } = started
  const map = readFileSync(field.cached('.blob.data.chunk_map'))
  const fd = openSync(field.cached('.blob.data.chunk_map'), 'r+')
  writeSync(fd, new Uint8Array(20), 0, 4, 12) // "all ready"
  writeSync(fd, Uint8Array.of((map[4096] ?? 0) & 0x7f), 0, 1, 4096)
  const user = field.container('one')
  assert.equal(await field.shown.lend(request, user), undefined)
  await field.shown.settled()
  assert.equal(await field.shown.lend(request, user), undefined)
  assert.deepEqual([field.erofs, field.lines.filter((line) => line.startsWith('warn'))], [[], []])
  writeSync(fd, Uint8Array.of(map[4096] ?? 0), 0, 1, 4096)
  closeSync(fd)
  assert.deepEqual(treeDifferences(await lent(started, user), IMAGE.tree), [])
})

test(
  'what the kernel shows is neither trimmed, nor collected, nor written by another image of the same blob',
  options,
  async () => {
    await using started = await startField('shared')
    const { field } = started
    const user = field.container('one')
    const at = await lent(started, user)
    const { dir } = field.settings.cache
    await trimCache(dir, 0)
    const kept = await field.images?.collectCache(() => field.shown.blobs(), AbortSignal.timeout(PLENTY_MS))
    assert.equal(kept?.removed, 0)
    const size = statSync(field.cached('.blob.data')).size
    assert.deepEqual(treeDifferences(at, IMAGE.tree), [])
    const before = readFileSync(field.cached('.blob.data'))
    const cache = await openChunkCache({ directory: dir, blobId: BLOB, chunkCount: 42, uncompressedSize: size })
    try {
      const info = Object.assign(new ChunkInfo(), { index: 1, uncompressedOffset: 4096, uncompressedSize: 4096 })
      cache.distrust(1)
      await assert.rejects(cache.store(info, new Uint8Array(4096) as VerifiedChunk), { code: 'READ_ONLY' })
    } finally {
      await cache.close()
    }
    assert.deepEqual(readFileSync(field.cached('.blob.data')), before)
    await field.shown.forget(started.request.snapshot.id)
    const gone = await field.images?.collectCache(() => field.shown.blobs(), AbortSignal.timeout(PLENTY_MS))
    assert.equal(gone?.removed, 1)
  },
)

test('RAFS v5 is nydusd’s, and is not looked at again', options, async () => {
  await using started = await startField()
  const { field } = started
  const request = field.request(field.layer(OTHER_IMAGE))
  for (let round = 0; round < 2; round += 1) {
    assert.equal(await field.shown.lend(request, field.container(`v5 ${round}`)), undefined)
    await field.shown.settled()
  }
  assert.equal(field.lines.filter((line) => line.includes('RAFS v5')).length, 1)
})
