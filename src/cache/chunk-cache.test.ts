import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { getSystemErrorName } from 'node:util'
import { CacheError } from './index.ts'
import { chunk, CHUNK, content, temporary } from './testing.ts'
import { DATA, MAP, testdata, open, mark, bitmap, code } from './test-chunk-cache.ts'

test('a new cache has a sparse data file and a map without claims, as the original makes them', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory, 42, { uncompressedSize: 376_832 })
  const data = statSync(join(directory, DATA))
  assert.equal(data.size, 376_832)
  assert.equal(data.blocks, 0)
  const map = readFileSync(join(directory, MAP))
  const theirs = readFileSync(join(testdata, 'full', MAP))
  assert.deepEqual(map.subarray(0, 4096), theirs.subarray(0, 4096))
  assert.ok(map.subarray(4096).every((byte) => byte === 0))
  assert.equal(cache.claimed(0), false)
  assert.equal(cache.claimed(42), false)
  assert.equal(cache.chunks.trusted.length, 42)
  assert.deepEqual(readdirSync(directory).sort(), [DATA, MAP])
})

test('the same chunks give the map that the original wrote, byte for byte', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory)
  await Promise.all(Array.from({ length: 40 }, (_unused, index) => mark(cache, 41 - index)))
  assert.deepEqual(readFileSync(join(directory, MAP)), readFileSync(join(testdata, 'partial', MAP)))
  await mark(cache, 0)
  await mark(cache, 1)
  assert.deepEqual(readFileSync(join(directory, MAP)), readFileSync(join(testdata, 'full', MAP)))
})

test("the original's partly filled cache is taken over: claims, not trust", async (t) => {
  const directory = temporary(t)
  await cp(join(testdata, 'partial'), directory, { recursive: true })
  writeFileSync(join(directory, DATA), Buffer.alloc(100, 1))
  const cache = await open(t, directory)
  assert.deepEqual(
    [0, 1, 2, 41, 42].map((index) => cache.claimed(index)),
    [false, false, true, true, false],
  )
  assert.equal(cache.isTrusted(2), false)
  cache.trust(chunk(2), content(2))
  assert.equal(cache.isTrusted(2), true)
  assert.equal(statSync(join(directory, DATA)).size, 42 * CHUNK)
})

test('a full map is marked all-ready when it is opened, and a withdrawn claim takes the mark away', async (t) => {
  const directory = temporary(t)
  await cp(join(testdata, 'full'), directory, { recursive: true })
  writeFileSync(join(directory, DATA), Buffer.alloc(42 * CHUNK, 1))
  const cache = await open(t, directory)
  const word = () => readFileSync(join(directory, MAP)).readUInt32LE(12)
  assert.equal(word(), 0x4d4d_4150)
  cache.distrust(7)
  assert.equal(word(), 0)
  assert.equal(bitmap(directory), 'feffffffffc0')
  assert.equal(cache.claimed(7), false)
  await mark(cache, 7)
  assert.equal(bitmap(directory), 'ffffffffffc0')
})

test('claims without data are dropped: the data file was deleted, the map was not', async (t) => {
  const directory = temporary(t)
  await cp(join(testdata, 'full'), directory, { recursive: true })
  const cache = await open(t, directory)
  assert.equal(cache.claimed(5), false)
  assert.equal(bitmap(directory), '000000000000')
})

test('stores data, marks it, and reads it back after reopening', async (t) => {
  const directory = temporary(t)
  const first = await open(t, directory)
  const record = chunk(3)
  const stored = first.store(record, content(3))
  record.index = 9 // the record belongs to the caller, who may use it again at once
  await stored
  assert.equal(first.isTrusted(3), true)
  await first.close()
  const second = await open(t, directory)
  assert.deepEqual([second.claimed(3), second.claimed(9), second.isTrusted(3)], [true, false, false])
  const into = new Uint8Array(CHUNK)
  assert.equal(await second.readUnverified(3 * CHUNK, into), true)
  assert.deepEqual(Buffer.from(into), Buffer.from(content(3)))
  assert.equal(await second.readUnverified(41 * CHUNK + 1, into), false)
})

test('a data file that another process made too short reads as absent', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory)
  await cache.store(chunk(41), content(41))
  truncateSync(join(directory, DATA), CHUNK)
  assert.equal(await cache.readUnverified(41 * CHUNK, new Uint8Array(CHUNK)), false)
})

test('a longer data file belongs to something else and is refused, untouched', async (t) => {
  const directory = temporary(t)
  writeFileSync(join(directory, DATA), Buffer.alloc(43 * CHUNK))
  await assert.rejects(open(t, directory), code('WRONG_SIZE'))
  assert.equal(statSync(join(directory, DATA)).size, 43 * CHUNK)
})

test('a link in the place of a cache file is refused: what it points to is not written', async (t) => {
  const directory = temporary(t)
  const victim = join(temporary(t), 'passwd')
  writeFileSync(victim, 'root:x:0:0')
  for (const name of [DATA, MAP]) {
    symlinkSync(victim, join(directory, name))
    await assert.rejects(open(t, directory), code('IO'))
    await assert.rejects(open(t, directory), /is a symbolic link, which is not followed; remove it/)
    assert.equal(readFileSync(victim, 'utf8'), 'root:x:0:0')
    rmSync(join(directory, name))
  }
  await open(t, directory)
})

test('many stores at once, the same chunk twice among them', async (t) => {
  const directory = temporary(t)
  const cache = await open(t, directory, 1000)
  const stores = Array.from({ length: 2000 }, (_unused, index) =>
    cache.store(chunk(index % 1000), content(index % 1000)),
  )
  await cache.close()
  await Promise.all(stores)
  assert.equal(bitmap(directory), 'ff'.repeat(125))
  const data = readFileSync(join(directory, DATA))
  for (let index = 0; index < 1000; index++) {
    assert.ok(data.subarray(index * CHUNK, (index + 1) * CHUNK).equals(content(index)), `chunk ${index}`)
  }
  await assert.rejects(cache.store(chunk(1), content(1)), code('CLOSED'))
  await assert.rejects(cache.readUnverified(0, new Uint8Array(1)), code('CLOSED'))
})

test('a chunk that is not of the blob is refused before anything is written', async (t) => {
  const cache = await open(t, temporary(t))
  for (const [index, offset, size] of [
    [42, 0, CHUNK],
    [-1, 0, CHUNK],
    [0, 41 * CHUNK + 1, CHUNK],
    [0, -1, CHUNK],
    [0, 0, CHUNK - 1],
    [0.5, 0, CHUNK],
  ] as const) {
    const info = chunk(0)
    Object.assign(info, { index, uncompressedOffset: offset, uncompressedSize: size })
    await assert.rejects(cache.store(info, content(0)), code('OUT_OF_RANGE'))
    assert.throws(() => cache.trust(info, content(0)), code('OUT_OF_RANGE'))
  }
})

test('blob ids that could leave the directory or be another file are refused', async (t) => {
  const directory = temporary(t)
  for (const blobId of [
    '',
    '.',
    '..',
    '../x',
    'a/b',
    '/etc/passwd',
    'x.blob.data',
    'a\0b',
    '-x',
    'ä',
    'a'.repeat(201),
  ]) {
    await assert.rejects(open(t, directory, 1, { blobId }), code('BAD_OPTION'), JSON.stringify(blobId))
  }
  assert.deepEqual(readdirSync(directory), [])
})

test('counts and sizes beyond the format are refused before memory is taken', async (t) => {
  const directory = temporary(t)
  for (const bad of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    await assert.rejects(open(t, directory, 1, { chunkCount: bad }), code('BAD_OPTION'))
    await assert.rejects(open(t, directory, 1, { uncompressedSize: bad }), code('BAD_OPTION'))
  }
  await assert.rejects(open(t, directory, 1, { chunkCount: 2 ** 24 + 1 }), code('BAD_OPTION'))
})

test('a directory that is not there gives a coded error with the path', async (t) => {
  await assert.rejects(open(t, join(temporary(t), 'absent')), (error: unknown) => {
    return error instanceof CacheError && error.code === 'IO' && error.message.includes('absent')
  })
})

test('a crash between data and mark leaves the chunk unclaimed', async (t) => {
  const directory = temporary(t)
  const order: string[] = []
  const cache = await open(t, directory, 42, {
    write: async (_fd, bytes, from) => {
      order.push(`data, map ${bitmap(directory)}`)
      return bytes.length - from
    },
    lock: { tryLock: () => order.push('mark') > 0, unlock: () => undefined },
  })
  await mark(cache, 0)
  assert.deepEqual(order, ['data, map 000000000000', 'mark'])
})

test('short writes are finished; a write that fails marks nothing and the next one may succeed', async (t) => {
  const directory = temporary(t)
  let failure: NodeJS.ErrnoException | undefined
  let calls = 0
  const cache = await open(t, directory, 42, {
    write: async (_fd, bytes, from) => {
      calls++
      if (failure !== undefined && from > 0) throw failure
      return Math.min(1000, bytes.length - from)
    },
  })
  await mark(cache, 0)
  assert.equal(calls, 5)
  for (const [errno, wanted] of [
    ['ENOSPC', 'NO_SPACE'],
    ['EDQUOT', 'NO_SPACE'],
    [getSystemErrorName(-122), 'NO_SPACE'],
    ['EROFS', 'READ_ONLY'],
    ['EIO', 'IO'],
  ] as const) {
    failure = Object.assign(new Error(errno), { code: errno })
    await assert.rejects(cache.store(chunk(1), content(1)), code(wanted))
    assert.deepEqual([cache.isTrusted(1), cache.claimed(1)], [false, false])
  }
  failure = undefined
  await mark(cache, 1)
  assert.equal(bitmap(directory), 'c00000000000')
})

test('a withdrawn claim is out of the file before new data goes in', async (t) => {
  const directory = temporary(t)
  let isBusy = false
  const seen: string[] = []
  const cache = await open(t, directory, 42, {
    write: async (_fd, bytes, from) => {
      seen.push(bitmap(directory))
      return bytes.length - from
    },
    lock: { tryLock: () => !isBusy, unlock: () => undefined },
  })
  await mark(cache, 0)
  isBusy = true
  cache.distrust(0)
  assert.equal(bitmap(directory), '800000000000')
  assert.equal(cache.claimed(0), false)
  const store = mark(cache, 0)
  setTimeout(() => (isBusy = false), 20)
  await store
  assert.deepEqual(seen, ['000000000000', '000000000000'])
  assert.equal(bitmap(directory), '800000000000')
})
