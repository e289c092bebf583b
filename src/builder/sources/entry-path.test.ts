import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EntryPath } from './entry-path.ts'

const upToNul = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString('latin1')

test('paths of the entries of a directory, of any bytes and lengths, share their memory', () => {
  const names = ['a', 'n'.repeat(255), 'é\xff\x01', 'b']
  const entry = new EntryPath(Buffer.from('/some/där', 'latin1'), names)
  const { ended } = entry
  const copies = names.map((name) => {
    entry.move(name)
    assert.equal(upToNul(entry.ended), `/some/där/${name}`)
    assert.equal(upToNul(entry.endedName), name)
    assert.equal(entry.ended, ended)
    return entry.copy()
  })
  assert.deepEqual(
    copies.map((path) => path.toString('latin1')),
    names.map((name) => `/some/där/${name}`),
  )
})
