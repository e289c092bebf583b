import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { whyNoFuse } from '../kernel/index.ts'
import { FileCounters, FileMetrics, recordFiles } from './file-counters.ts'
import { FOP } from './metrics.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from './testing.ts'

const ALL = { counts: true, pattern: true, latest: true }

test('what several threads count of a file is one sum', () => {
  const recording = recordFiles(ALL, 10, 2)
  const [one, two] = [new FileCounters(recording, 0), new FileCounters(recording, 1)]
  one.seen(7)
  one.read(7, 4096)
  two.read(7, 100)
  two.read(7, -1)
  two.operation(9, FOP.Getattr)
  const metrics = new FileMetrics(recording)
  const files = metrics.files()
  assert.deepEqual(Object.keys(files), ['7', '9'])
  assert.equal(files['7']?.total_fops, 3)
  assert.equal(files['7']?.data_read, 4196)
  assert.deepEqual(files['7']?.block_count_read, [2, 0, 1, 0, 0, 0, 0, 0])
  assert.equal(files['9']?.fop_hits[FOP.Getattr], 1)
  const [pattern, ...others] = metrics.pattern()
  assert.deepEqual([pattern?.ino, pattern?.nr_read, others.length], [7, 3, 0])
})

test('files read lately are told once, as ranges', () => {
  const recording = recordFiles(ALL, 10, 2)
  const [one, two] = [new FileCounters(recording, 0), new FileCounters(recording, 1)]
  for (const ino of [5, 9, 8]) one.read(ino, 1)
  for (const ino of [10, 5, 3]) two.read(ino, ino === 3 ? -1 : 1)
  const metrics = new FileMetrics(recording)
  assert.deepEqual(metrics.takeLatest(), [[5], [8, 10]])
  assert.deepEqual(metrics.takeLatest(), [])
  one.read(5, 1)
  assert.deepEqual(metrics.takeLatest(), [[5]])
})

test('any inode numbers are told apart, and what has no room is left out', () => {
  const ino = fc.oneof(
    fc.integer({ min: 1, max: 40 }),
    fc.maxSafeInteger().map(Math.abs),
    fc.nat(200).map((n) => n * 2 ** 30),
  )
  fc.assert(
    fc.property(fc.array(ino, { maxLength: 60 }), fc.integer({ min: 1, max: 40 }), (inodes, capacity) => {
      const recording = recordFiles(ALL, capacity, 1)
      const counters = new FileCounters(recording, 0)
      const wanted = new Map<string, number>()
      for (const each of inodes) {
        counters.read(each, 10)
        const key = String(each)
        if (wanted.has(key) || wanted.size < capacity) wanted.set(key, (wanted.get(key) ?? 0) + 10)
      }
      const found = Object.entries(new FileMetrics(recording).files()).map(
        ([key, file]) => [key, file.data_read] as const,
      )
      assert.deepEqual(new Map(found), wanted)
    }),
  )
})

test('nothing is recorded that was not asked for', () => {
  const recording = recordFiles({ counts: false, pattern: true, latest: false }, 10, 1)
  const counters = new FileCounters(recording, 0)
  counters.seen(1)
  counters.operation(2, FOP.Getattr)
  counters.read(3, 5)
  const metrics = new FileMetrics(recording)
  assert.deepEqual(metrics.files(), {})
  assert.deepEqual(metrics.takeLatest(), [])
  assert.deepEqual(
    metrics.pattern().map(({ ino, nr_read: reads }) => [ino, reads]),
    [[3, 1]],
  )
})

test('a mount tells of each file what was done with it', { skip: whyNoFuse() ?? false, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const image = carriedImage('v6-tar-none-c64k')
  const wanted = { iostats_files: true, access_pattern: true, latest_read_files: true }
  writeFileSync(join(scratch.path, 'config.json'), localConfig(CARRIED_BLOBS, scratch.cache, wanted))
  const daemon = await scratch.nydusd(['--bootstrap', image.bootstrap, '--config', 'config.json'])
  const file = join(scratch.mnt, 'sizes/65536')
  readFileSync(file) // its data is fetched: the main thread answers
  readFileSync(join(scratch.mnt, 'sizes/4096'))
  const listed = readdirSync(join(scratch.mnt, 'sizes'))
  const own = String(statSync(file, { bigint: true }).ino & (2n ** 56n - 1n)) // without the mount's number
  const about = await daemon.json('/api/v1/metrics')
  assert.ok(
    about['files_account_enabled'] && about['access_pattern_enabled'] && about['record_latest_read_files_enabled'],
  )
  const files = (await daemon.json('/api/v1/metrics/files?id=/')) as Record<
    string,
    { data_read: number; block_count_read: number[] }
  >
  assert.equal(files[own]?.data_read, 65_536)
  assert.deepEqual(files[own]?.block_count_read, [0, 0, 0, 0, 1, 0, 0, 0])
  assert.ok(Object.keys(files).length >= listed.length, 'all that was listed is there')
  const pattern = JSON.parse((await daemon.api('GET', '/api/v1/metrics/pattern')).text) as Array<Record<string, number>>
  assert.equal(pattern.length, 2)
  const read = pattern.find((one) => String(one['ino']) === own)
  assert.equal(read?.['nr_read'], 1)
  assert.ok(Math.abs((read?.['first_access_time_secs'] ?? 0) - Date.now() / 1000) < 60)
  const latest = async (): Promise<number[]> =>
    (JSON.parse((await daemon.api('GET', '/api/v1/metrics/files?latest=true')).text) as number[][]).flat()
  assert.ok((await latest()).includes(Number(own)))
  assert.deepEqual(await latest(), [])
  assert.ok(!daemon.log.includes('without effect'))
  assert.equal(await daemon.stop(), 0)
})
