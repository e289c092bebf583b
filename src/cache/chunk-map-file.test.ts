import assert from 'node:assert/strict'
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import * as fc from 'fast-check'
import type { ChunkCacheOptions } from './index.ts'
import { chunk, CHUNK, content, ID, temporary } from './testing.ts'
import { DATA, MAP, testdata, writer, open, mark, bitmap } from './test-chunk-cache.ts'

test('a lock that is never given back stops nobody', async (t) => {
  const directory = temporary(t)
  const never = await open(t, directory, 42, { lock: { tryLock: () => false, unlock: () => undefined } })
  await mark(never, 0)
  assert.equal(bitmap(directory), '800000000000')
  const broken: ChunkCacheOptions['lock'] = {
    tryLock: () => {
      throw new Error('no locks on this file system')
    },
    unlock: () => assert.fail('not held'),
  }
  const without = await open(t, directory, 42, { lock: broken })
  await mark(without, 1)
  assert.equal(bitmap(directory), 'c00000000000')
})

test('what another process marks is seen without reopening', async (t) => {
  const directory = temporary(t)
  const one = await open(t, directory)
  const other = await open(t, directory)
  await one.store(chunk(8), content(8))
  assert.deepEqual([other.claimed(8), other.isTrusted(8)], [true, false])
})

const garbage = fc.oneof(
  fc.uint8Array({ maxLength: 5000 }),
  fc.uint8Array({ minLength: 4102, maxLength: 4102 }),
  fc.tuple(fc.nat(4101), fc.nat(255)).map(([at, value]) => {
    const map = new Uint8Array(readFileSync(join(testdata, 'partial', MAP)))
    map[at] = value
    return map
  }),
  fc.nat(4102).map((length) => new Uint8Array(readFileSync(join(testdata, 'partial', MAP)).subarray(0, length))),
)

test('garbage, short, long and damaged maps are mended; stores work, no padding bit is ever set', async (t) => {
  const parent = temporary(t)
  let run = 0
  await fc.assert(
    fc.asyncProperty(garbage, fc.uniqueArray(fc.nat(41)), async (map, stores) => {
      const directory = join(parent, String(run++))
      await mkdir(directory)
      writeFileSync(join(directory, MAP), map)
      writeFileSync(join(directory, DATA), 'x')
      const cache = await open(t, directory)
      const before = new Set(
        Array.from({ length: 42 }, (_unused, index) => index).filter((index) => cache.claimed(index)),
      )
      await Promise.all(stores.map((index) => cache.store(chunk(index), content(index))))
      for (let index = 0; index < 42; index++) {
        assert.equal(cache.claimed(index), before.has(index) || stores.includes(index))
        assert.equal(cache.isTrusted(index), stores.includes(index))
      }
      await cache.close()
      assert.equal(statSync(join(directory, MAP)).size, 4102)
      const again = await open(t, directory)
      assert.deepEqual(
        stores.filter((index) => !again.claimed(index)),
        [],
      )
      await again.close()
    }),
    { numRuns: 60 },
  )
})

test('a map of zeros, as a crash leaves it, starts empty with a header', async (t) => {
  const directory = temporary(t)
  writeFileSync(join(directory, MAP), Buffer.alloc(4102))
  writeFileSync(join(directory, DATA), 'x')
  await open(t, directory)
  assert.equal(readFileSync(join(directory, MAP)).readUInt32LE(0), 0x424d_4150)
})

test('a map of version 0 is used', async (t) => {
  const directory = temporary(t)
  const map = Buffer.alloc(4102)
  map.writeUInt32LE(0x424d_4150)
  map[4096] = 0x40
  writeFileSync(join(directory, MAP), map)
  writeFileSync(join(directory, DATA), 'x')
  const cache = await open(t, directory)
  assert.deepEqual([cache.claimed(0), cache.claimed(1)], [false, true])
})

/** A process that stores every chunk n with n % step = first, forever from the start again when it is done. */
async function startWriter(t: TestContext, directory: string, args: readonly string[]): Promise<ChildProcess> {
  const child = fork(writer, [directory, ID, ...args], { execArgv: process.execArgv.filter((it) => it !== '--test') })
  t.after(() => child.kill('SIGKILL'))
  await once(child, 'message', { signal: AbortSignal.timeout(100_000) })
  return child
}

test('two processes that mark neighbouring chunks at the same time lose none', { timeout: 180_000 }, async (t) => {
  const directory = temporary(t)
  const children = await Promise.all([
    startWriter(t, directory, ['4000', '0', '2']),
    startWriter(t, directory, ['4000', '1', '2']),
  ])
  const ends = children.map((child) => once(child, 'exit'))
  for (const child of children) child.send('go')
  assert.deepEqual(
    (await Promise.all(ends)).map(([status]) => status as number),
    [0, 0],
  )
  assert.equal(bitmap(directory), 'ff'.repeat(500))
})

test('a process killed at any moment leaves no marked chunk without its data', { timeout: 180_000 }, async (t) => {
  const directory = temporary(t)
  for (let round = 0; round < 6; round++) {
    const child = await startWriter(t, directory, ['4000', '0', '1'])
    const exited = once(child, 'exit')
    child.send('go')
    await sleep(3 + round * 12)
    child.kill('SIGKILL')
    await exited
    const cache = await open(t, directory, 4000)
    const data = readFileSync(join(directory, DATA))
    for (let index = 0; index < 4000; index++) {
      if (!cache.claimed(index)) continue
      assert.ok(data.subarray(index * CHUNK, (index + 1) * CHUNK).equals(content(index)), `chunk ${index}`)
    }
    await cache.close()
  }
})
