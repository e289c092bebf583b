import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PlaceList } from './place-list.ts'

const COUNT = 1 << 20

test('a list keeps what was added, and when it is cleared its memory is free at once', () => {
  const before = process.memoryUsage().arrayBuffers
  const list = new PlaceList()
  for (let place = 0; place < COUNT; place++) list.push(place * 4096)
  const { all } = list
  assert.equal(all.length, COUNT)
  assert.ok(all.every((place, at) => place === (at * 4096) % 2 ** 32))
  const most = COUNT * 4 + 64 * 1024
  const grown = process.memoryUsage().arrayBuffers - before
  assert.ok(grown <= most, `${grown} bytes where ${most} hold the list: what it left behind when it grew was not freed`)
  list.clear()
  assert.equal(list.length, 0)
  const left = process.memoryUsage().arrayBuffers - before
  assert.ok(left <= 64 * 1024, `${left} bytes are left`)
  list.push(7)
  assert.deepEqual([...list.all], [7])
})
