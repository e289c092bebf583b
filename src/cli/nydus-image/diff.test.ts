import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Ran } from '../testing.ts'
import { runAll } from './testing.ts'

interface Told {
  readonly changes: Array<{ readonly path: string; readonly change: string; readonly parts: string[] }>
  readonly summary: {
    readonly paths: unknown
    readonly fetch: Record<
      'total' | 'missing' | 'elsewhere',
      { chunks: number; stored_bytes: number; plain_bytes: number }
    >
    readonly blobs: Record<'shared' | 'only_a' | 'only_b', string[]>
  }
}

let folder = ''
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'diff-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

describe('nydus-image diff', () => {
  let ran: Ran[] = []
  before(async () => {
    for (const name of ['one', 'two']) mkdirSync(join(folder, name))
    writeFileSync(join(folder, 'one/kept'), Buffer.alloc(10_000, 1))
    writeFileSync(join(folder, 'one/gone'), 'gone')
    writeFileSync(join(folder, 'two/kept'), Buffer.alloc(10_000, 1))
    writeFileSync(join(folder, 'two/new'), Buffer.alloc(5000, 2))
    utimesSync(join(folder, 'one/kept'), 1_700_000_000, 1_700_000_000)
    const create = ['create', '-l', 'error', '-D', '.', '--compressor', 'none']
    ran = await runAll(
      [
        [...create, '-B', 'one.boot', '--blob-id', 'first', 'one'],
        [...create, '-B', 'two.boot', '--blob-id', 'second', '--chunk-dict', 'one.boot', 'two'],
        [...create, '-B', 'alone.boot', '--blob-id', 'alone', 'two'],
        ['diff', '--json', 'one.boot', 'two.boot'],
        ['diff', '--json', '--summary', 'one.boot', 'alone.boot'],
        ['diff', '--exit-code', 'two.boot', 'two.boot'],
        ['diff', '--exit-code', '--summary', 'one.boot', 'two.boot'],
        ['diff', 'one.boot', 'two.boot'],
      ],
      folder,
    )
  })

  test('tells paths and what a dictionary saves a node', () => {
    assert.equal(ran[3]?.exit, 0, ran[3]?.stderr)
    const { changes, summary } = JSON.parse(ran[3]?.stdout ?? '') as Told
    const shown = changes.filter(({ path }) => path !== '/').map(({ path, change, parts }) => ({ path, change, parts }))
    assert.deepEqual(shown, [
      { path: '/gone', change: 'removed', parts: [] },
      { path: '/kept', change: 'changed', parts: ['mtime'] },
      { path: '/new', change: 'added', parts: [] },
    ])
    assert.deepEqual(summary.fetch.missing, { chunks: 1, stored_bytes: 5000, plain_bytes: 5000 })
    assert.deepEqual(summary.fetch.total, { chunks: 2, stored_bytes: 15_000, plain_bytes: 15_000 })
    assert.deepEqual(summary.blobs, { shared: ['first'], only_a: [], only_b: ['second'] })
  })

  test('tells what would be fetched again for lack of a dictionary', () => {
    const { changes, summary } = JSON.parse(ran[4]?.stdout ?? '') as Told
    assert.equal(changes, undefined)
    assert.equal(summary.fetch.missing.chunks, 2)
    assert.deepEqual(summary.fetch.elsewhere, { chunks: 1, stored_bytes: 10_000, plain_bytes: 10_000 })
  })

  test('exits with 3 for a difference when it is asked to', () => {
    assert.deepEqual(
      ran.slice(5).map(({ exit, stderr }) => `${exit}${stderr}`),
      ['0', '3', '0'],
    )
    assert.match(ran[7]?.stdout ?? '', /^- file {4}\/gone \(4 B\)$/m)
  })

  test('names the image that is damaged', async () => {
    const bytes = readFileSync(join(folder, 'two.boot'))
    // What lies behind the tables: inodes and names.
    bytes.fill(0xff, bytes.length - 4096)
    writeFileSync(join(folder, 'bad.boot'), bytes)
    for (const [a, b] of [
      ['one.boot', 'bad.boot'],
      ['bad.boot', 'one.boot'],
    ] as const) {
      const [found] = await runAll([['diff', '--json', a, b]], folder)
      assert.equal(found?.exit, 1)
      assert.match(found?.stderr ?? '', /^Error: .*\n\nCaused by:\n {4}bad\.boot: .*\n$/)
    }
  })
})
