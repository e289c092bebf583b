import assert from 'node:assert/strict'
import { appendFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { ownMemoryFolder } from '../../kernel/index.ts'
import { requestKey } from './files-in-hand.ts'
import { FilesJournal, journalDocument, journalIn, newJournal } from './files-journal.ts'

const name = newJournal()
const folder = name === undefined ? undefined : ownMemoryFolder('nydus')
const skip = folder === undefined ? 'there is no memory file system at /dev/shm' : false

function journal(of = newJournal()): { path: string; name: string; open: () => FilesJournal } {
  const named = of ?? assert.fail('no journal')
  const path = join(folder ?? '', named)
  return { path, name: named, open: () => FilesJournal.open(named, () => undefined) ?? assert.fail(`no ${path}`) }
}

test('the next process finds what is in hand, and not what was let go', { skip }, () => {
  const { open, path } = journal()
  const first = open()
  for (const id of [2, 3, 2 ** 52]) first.node(id, Buffer.from(`handle ${id}`))
  first.forgotten(3)
  first.open(1, 2, 0o2, undefined)
  first.open(2, 2 ** 52, 0, { low: 9, high: 1 })
  first.released(1)
  const begun = { at: 1_700_000_000_123, before: Buffer.alloc(20, 9) }
  first.change({ low: 7, high: 1, begun })
  first.change({ low: 7, high: 1, result: -17 })
  first.change({ low: 8, high: 1, begun })
  first.leave()
  appendFileSync(path, Buffer.from([1, 40, 9])) // a record that was cut by a death
  const second = open()
  assert.deepEqual(
    [...second.before.nodes].map(([id, handle]) => [id, handle.toString()]),
    [2, 2 ** 52].map((id) => [id, `handle ${id}`]),
  )
  assert.deepEqual([...second.before.opens], [[2, { node: 2 ** 52, flags: 0, request: { low: 9, high: 1 } }]])
  assert.deepEqual(
    [...second.before.changes],
    [
      [requestKey(7, 0x8000_0001), { low: 7, high: 1, result: -17 }],
      [requestKey(8, 0x8000_0001), { low: 8, high: 1, begun }],
    ],
  )
  second.end()
  assert.ok(!existsSync(path))
})

test('a journal that grows is written anew, with what is in hand and what another process did not answer', {
  skip,
}, () => {
  const { open, name: at, path } = journal()
  const handle = Buffer.alloc(40, 1)
  const first = open()
  first.change({ low: 1, high: 0, result: 3 })
  first.leave()
  const one = FilesJournal.open(at, (to) => to.node(5, handle)) ?? assert.fail()
  const begun = { at: 5, before: Buffer.alloc(20) }
  one.change({ low: 2, high: 0, begun })
  for (let id = 0; id < 40_000; id += 1) {
    one.node(id, handle)
    one.forgotten(id)
  }
  assert.ok(statSync(path).size < 2 << 20, `${statSync(path).size} bytes`)
  one.leave()
  const other = open()
  assert.ok(other.before.nodes.has(5))
  assert.deepEqual(
    [...other.before.changes.values()],
    [
      { low: 1, high: 0, result: 3 },
      { low: 2, high: 0, begun },
    ],
  )
  other.end()
})

test('names that could be another file are none, and documents of others have none', { skip }, () => {
  for (const bad of [
    '',
    '../x',
    '/etc/passwd',
    'a'.repeat(32),
    `${'g'.repeat(32)}.files`,
    `x/${'a'.repeat(32)}.files`,
  ]) {
    assert.equal(
      FilesJournal.open(bad, () => undefined),
      undefined,
    )
    assert.equal(journalIn(JSON.stringify({ files: bad })), undefined)
  }
  for (const document of ['', '{', 'null', '[]', '7', '{"files":7}', journalDocument(undefined)])
    assert.equal(journalIn(document), undefined, document)
  assert.equal(journalIn(journalDocument(name)), name)
})

test('whatever stands in a journal, it is read or passed over', { skip }, () => {
  const { open, path } = journal()
  open().leave()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(20), (bytes, cut) => {
      writeFileSync(path, Buffer.concat([Buffer.from('NYDFILE1'), bytes]))
      truncateSync(path, Math.max(0, statSync(path).size - cut))
      const read = open()
      assert.ok(read.before.nodes.size + read.before.opens.size <= bytes.length)
      read.leave()
    }),
    { numRuns: 200 },
  )
  assert.ok(readFileSync(path).length >= 0)
  open().end()
})
