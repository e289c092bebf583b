import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BlobReader } from '../backend/index.ts'
import { StoredRuns } from './stored-runs.ts'

const MIB = 1 << 20

/** A blob whose bytes tell where they are, and where it was read. */
function blobOf(size: number): { readonly reader: BlobReader; readonly reads: Array<readonly [number, number]> } {
  const reads: Array<readonly [number, number]> = []
  const reader: BlobReader = {
    size: async () => size,
    read: async (offset, into) => {
      reads.push([offset, into.length])
      for (let at = 0; at < into.length; at += 1) into[at] = (offset + at) % 251
    },
    close: async () => undefined,
  }
  return { reader, reads }
}

test('pieces that follow each other are read together, those before them again, and what was given stays', async (t) => {
  const { reader, reads } = blobOf(9 * MIB)
  const told: number[] = []
  const runs = new StoredRuns(reader, t.signal, (bytes) => told.push(bytes))
  const given: Array<readonly [number, Uint8Array]> = []
  for (const offset of [5 * MIB, 5 * MIB + 1000, 100, 4 * MIB, 9 * MIB - 10])
    given.push([offset, await runs.read(offset, 10)])
  assert.deepEqual(reads, [
    [5 * MIB, 4 * MIB],
    [100, 4 * MIB],
    [9 * MIB - 10, 10],
  ])
  assert.deepEqual(told, [4 * MIB, 4 * MIB, 10])
  for (const [offset, bytes] of given)
    assert.deepEqual(
      [...bytes],
      Array.from({ length: 10 }, (_unused, at) => (offset + at) % 251),
    )
  assert.ok(!(runs.read(9 * MIB - 5, 5) instanceof Promise))
})
