import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { whyNoFuse } from '../../kernel/index.ts'
import { FOP } from '../metrics.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from '../testing.ts'
import { ListingHabits } from './listing-habits.ts'

const skip = whyNoFuse() ?? false
const ALL = 0
const NAMES = Number.POSITIVE_INFINITY
const run = promisify(execFile)

test('who lists the next directory without having looked a file up gets names, until it looks one up', () => {
  const habits = new ListingHabits()
  assert.equal(habits.mayLeaveOut(70_000, true), 4)
  habits.leftOut(70_000)
  assert.equal(habits.mayLeaveOut(70_000, false), ALL, 'the rest of a long directory')
  assert.equal(habits.mayLeaveOut(70_000, true), NAMES)
  assert.equal(habits.mayLeaveOut(70_000, false), NAMES)
  habits.lookedUp(70_000)
  assert.equal(habits.mayLeaveOut(70_000, true), ALL)
})

test('who looks up what was left out gets everything', () => {
  const habits = new ListingHabits()
  assert.equal(habits.mayLeaveOut(8, true), 4)
  habits.leftOut(8)
  habits.lookedUp(8)
  for (const isFirst of [true, false, true]) assert.equal(habits.mayLeaveOut(8, isFirst), ALL)
})

test('a directory without files tells nothing', () => {
  const habits = new ListingHabits()
  for (let round = 0; round < 3; round += 1) assert.equal(habits.mayLeaveOut(8, true), 4)
})

test('processes do not change what others get, and those that cannot be told apart get everything', () => {
  const habits = new ListingHabits()
  habits.lookedUp(8)
  assert.equal(habits.mayLeaveOut(8 + 1024, true), 4)
  habits.leftOut(8 + 1024)
  assert.equal(habits.mayLeaveOut(8, true), 4, 'it lost its place')
  habits.lookedUp(0)
  assert.equal(habits.mayLeaveOut(0, true), ALL)
})

interface Seen {
  readonly files: number
  readonly lookups: number
}

/** Files that `find` sees, and what LOOKUPs they cost. */
async function find(scratch: Scratch, daemon: Awaited<ReturnType<Scratch['nydusd']>>, test: string): Promise<Seen> {
  const count = async (): Promise<number> =>
    ((await daemon.json('/api/v1/metrics'))['fop_hits'] as number[])[FOP.Lookup] ?? Number.NaN
  const before = await count()
  const { stdout } = await run('find', [scratch.mnt, '!', '-type', 'd', ...test.split(' '), '-printf', 'x'])
  return { files: stdout.length, lookups: (await count()) - before }
}

test('find by name asks for no file, find by size for few', { skip, timeout: 180_000 }, async () => {
  const image = carriedImage('v6-tar-none-c64k')
  const files = readFileSync(image.tree, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { path: string; type: string })
    .filter(({ type }) => type !== 'dir')
  const inFolder = Map.groupBy(files, ({ path }) => dirname(path))
  const largest = Math.max(...[...inFolder.values()].map((group) => group.length))
  for (const order of [['-name *', '-size -9999G'], ['-size -9999G']]) {
    await using scratch = new Scratch()
    const config = join(scratch.path, 'config.json')
    writeFileSync(config, localConfig(CARRIED_BLOBS, scratch.cache))
    const daemon = await scratch.nydusd(['--bootstrap', image.bootstrap, '--config', config])
    const [first, second] = [
      await find(scratch, daemon, order[0] ?? ''),
      order[1] === undefined ? undefined : await find(scratch, daemon, order[1]),
    ]
    assert.equal(first.files, files.length)
    if (second === undefined) assert.ok(first.lookups <= 4 + largest, `${first.lookups} of ${files.length}`)
    else {
      assert.equal(first.lookups, 0)
      assert.equal(second.files, files.length)
      assert.ok(second.lookups > 0, 'names were given without attributes')
    }
  }
})
