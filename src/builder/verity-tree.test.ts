import assert from 'node:assert/strict'
import { hash } from 'node:crypto'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { VerityTree } from './verity-tree.ts'

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer')

/** The tree by its definition, level by level, over a disk in memory. */
function treeOf(disk: Buffer, blockSize: number): { rootHash: string; pages: Buffer } {
  const filler = sha256(Buffer.alloc(4096))
  let digests = Array.from({ length: disk.length / blockSize }, (_none, at) =>
    sha256(disk.subarray(at * blockSize, (at + 1) * blockSize)),
  )
  if (digests.length === 1) return { rootHash: digests[0]?.toString('hex') ?? '', pages: Buffer.alloc(0) }
  let pages = Buffer.alloc(0)
  do {
    const level: Buffer[] = []
    for (let at = 0; at < digests.length; at += 128)
      level.push(Buffer.concat(Array.from({ length: 128 }, (_none, entry) => digests[at + entry] ?? filler)))
    pages = Buffer.concat([...level, pages])
    digests = level.map(sha256)
  } while (digests.length > 1)
  return { rootHash: digests[0]?.toString('hex') ?? '', pages }
}

test('holes and data, in any pieces, give the tree of the whole disk', () => {
  const piece = fc.record({ isHole: fc.boolean(), blocks: fc.integer({ min: 1, max: 700 }), odd: fc.nat(511) })
  fc.assert(
    fc.property(fc.constantFrom(512, 4096), fc.array(piece, { minLength: 1, maxLength: 5 }), (blockSize, pieces) => {
      const tree = new VerityTree(blockSize)
      const parts: Buffer[] = []
      const add = (isHole: boolean, length: number): void => {
        const bytes = Buffer.alloc(length, isHole ? 0 : parts.length + 1)
        parts.push(bytes)
        if (isHole) tree.zeros(length)
        else tree.update(bytes)
      }
      for (const { isHole, blocks, odd } of pieces) add(isHole, blocks * blockSize + odd)
      const length = parts.reduce((sum, part) => sum + part.length, 0)
      if (length % blockSize !== 0) add(true, blockSize - (length % blockSize))
      const { rootHash, pages } = tree.finish()
      assert.deepEqual({ rootHash, pages: Buffer.concat(pages) }, treeOf(Buffer.concat(parts), blockSize))
    }),
    { numRuns: 40 },
  )
})

test('a disk of one block needs no pages: its digest is the root', () => {
  const tree = new VerityTree(4096)
  tree.update(Buffer.alloc(4096, 7))
  assert.deepEqual(tree.finish(), { rootHash: sha256(Buffer.alloc(4096, 7)).toString('hex'), pages: [] })
})
