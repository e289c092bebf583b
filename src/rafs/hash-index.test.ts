import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { HashIndex, mix } from './hash-index.ts'

test('rows are found by their hash, and those of other keys are not looked at', () => {
  const index = new HashIndex()
  const rows = 10_000
  let looked = 0
  const find = (key: number): number =>
    index.find(mix(0, key), (row) => {
      looked++
      return row === key
    })
  for (let row = 1; row <= rows; row++) {
    assert.equal(find(row), 0)
    index.add(mix(0, row), row)
  }
  for (let row = 1; row <= rows; row++) assert.equal(find(row), row)
  // Two keys of the same 32 bits are to be expected once in a hundred runs.
  assert.ok(looked >= rows && looked < rows + 10, `${looked} rows were compared`)
})

test('rows of one hash are told apart; one takes the place of another', () => {
  const index = new HashIndex()
  const find = (wanted: number): number => index.find(7, (row) => row === wanted)
  for (let row = 1; row <= 300; row++) index.add(7, row)
  for (let row = 1; row <= 300; row++) assert.equal(find(row), row)
  index.replace(7, 100, 1000)
  assert.deepEqual([find(100), find(1000)], [0, 1000])
  index.clear()
  assert.equal(find(1000), 0)
})

test('a row takes the place of another under the hash that is named, wherever else that one is', () => {
  const index = new HashIndex()
  const find = (hash: number, wanted: number): number => index.find(hash, (row) => row === wanted)
  index.add(4, 9)
  index.add(5, 1)
  index.add(4, 1) // behind the one of another hash
  index.replace(4, 1, 2)
  assert.deepEqual([find(4, 2), find(4, 1), find(5, 1), find(4, 9)], [2, 0, 1, 9])
})

test('a table that grew leaves no smaller ones behind, and one that was cleared nothing', () => {
  const before = process.memoryUsage().arrayBuffers
  const index = new HashIndex()
  const rows = 1 << 18
  for (let row = 1; row <= rows; row++) index.add(mix(0, row), row)
  const held = process.memoryUsage().arrayBuffers - before
  // Twice the rows or four times, two words each.
  assert.ok(held <= rows * 32 + 64 * 1024, `${held} bytes for ${rows} rows`)
  index.clear()
  const left = process.memoryUsage().arrayBuffers - before
  assert.ok(left <= 64 * 1024, `${left} bytes are left`)
  assert.equal(
    index.find(mix(0, 1), () => true),
    0,
  )
})

test('rows are found under the hashes that they were added with, however these crowd, and whatever is left behind under others', () => {
  const step = fc.record({
    hash: fc.constantFrom(0, 1, 2, 255, 256, 511, 0xffff_ffff),
    row: fc.integer({ min: 1, max: 40 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
      const index = new HashIndex()
      // By hash, the rows that are there; an owner has each once under a hash.
      const model = new Map<number, Set<number>>()
      const find = (hash: number, wanted: number): number => index.find(hash, (row) => row === wanted)
      for (const { hash, row } of steps) {
        const rows = model.get(hash) ?? new Set()
        model.set(hash, rows)
        if (rows.has(row)) continue
        const [old] = rows
        if (old === undefined || row % 2 === 0) index.add(hash, row)
        else {
          index.replace(hash, old, row)
          rows.delete(old)
        }
        rows.add(row)
      }
      for (const [hash, rows] of model)
        for (let row = 1; row <= 40; row++) assert.equal(find(hash, row), rows.has(row) ? row : 0)
      assert.equal(find(3, 1), 0)
    }),
    { numRuns: 500 },
  )
})
