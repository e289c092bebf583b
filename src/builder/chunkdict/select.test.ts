import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { ChunkFacts } from './chunk-facts.ts'
import { ImageClusters } from './clusters.ts'
import { selectChunks } from './select.ts'
import { smoothed } from './smoothing.ts'
import { byImage, compareNumbers, divide } from './training.ts'

/** Facts of images: for each `image:version` its chunks, one letter each; upper case is large. All in one blob, each letter at its place. */
function factsOf(images: Readonly<Record<string, string>>): ChunkFacts {
  const facts = new ChunkFacts()
  for (const [name, chunks] of Object.entries(images)) {
    const [image = '', version = ''] = name.split(':')
    for (const letter of chunks) {
      const size = letter === letter.toUpperCase() ? 100_000 : 1000
      const at = (letter.codePointAt(0) ?? 0) * 1_000_000
      facts.add({
        image,
        version,
        blobId: letter === letter.toUpperCase() ? 'LARGE' : 'small',
        digest: (letter.codePointAt(0) ?? 0).toString(16).padStart(64, '0'),
        crc32c: 0,
        compressedSize: size,
        uncompressedSize: size,
        compressedOffset: at,
        uncompressedOffset: at,
      })
    }
  }
  return facts
}

/** The letters of rows, as `version` + letter. */
function letters(facts: ChunkFacts, rows: readonly number[]): string[] {
  return rows.map((row) => String.fromCodePoint(Number.parseInt(facts.chunk(row).digest, 16)))
}

const signal = new AbortController().signal

describe('versions', () => {
  test('are ordered by the numbers in their names, and 70 % of them are learned from', () => {
    const facts = factsOf({ 'a:v1.10': 'd', 'a:v1.9': 'c', 'a:v1.2': 'b', 'a:v1': 'a' })
    const { train, test: judging } = divide(facts, facts.rows)
    assert.deepEqual(letters(facts, train), ['a', 'b'])
    assert.deepEqual(letters(facts, judging), ['c', 'd'])
  })

  test('without different numbers count as one', () => {
    const facts = factsOf({ 'a:latest': 'x', 'a:stable': 'y', 'a:99999999999': 'z' })
    assert.deepEqual(letters(facts, divide(facts, facts.rows).test), ['x', 'y', 'z'])
  })

  test('their numbers are compared as lists', () => {
    const list = fc.array(fc.nat(3), { maxLength: 3 })
    fc.assert(
      fc.property(list, list, list, (a, b, c) => {
        assert.equal(Math.sign(compareNumbers(a, b)) + Math.sign(compareNumbers(b, a)), 0)
        if (compareNumbers(a, b) <= 0 && compareNumbers(b, c) <= 0) assert.ok(compareNumbers(a, c) <= 0)
      }),
    )
  })

  test('keep what the version before had: scores rise with each row that repeats', () => {
    const facts = factsOf({ 'a:1': 'abcd', 'a:2': 'abxcd', 'a:3': 'abcyd' })
    // Second version: a 0.5, b 0.75, x 0.375, c 0.6875, d 0.84. Third: a 0.92, b 0.96, c 0.98, y 0.49, d 0.75.
    assert.deepEqual(letters(facts, smoothed(facts, facts.rows, 0.7)), ['b', 'd', 'a', 'c'])
    assert.deepEqual(letters(facts, smoothed(facts, facts.rows, 0.97)), ['c'])
  })
})

describe('clusters', () => {
  const alike = (count: number, chunks: string): Record<string, string> =>
    Object.fromEntries(
      Array.from({ length: count }, (_, i) => [`image-${i}:1`, chunks + String.fromCodePoint(0x100 + i)]),
    )

  test('eleven images with much in common are one, and its dictionary is what nine of ten have', async () => {
    const facts = factsOf({ ...alike(10, 'ABCD'), 'other:1': 'ABCq', 'far:1': 'ZYX' })
    const [cluster, ...more] = await new ImageClusters(facts, byImage(facts, facts.rows), signal).at(0.7)
    assert.equal(more.length, 0)
    assert.equal(cluster?.images.length, 11)
    assert.deepEqual(letters(facts, cluster?.rows ?? []).sort(), ['A', 'B', 'C', 'D'])
  })

  test('of ten only the first is in one, as in the original; nine are too few', async () => {
    for (const [count, wanted] of [
      [9, []],
      [10, [1]],
    ] as const) {
      const facts = factsOf(alike(count, 'ABCD'))
      const clusters = await new ImageClusters(facts, byImage(facts, facts.rows), signal).at(0.9)
      assert.deepEqual(
        clusters.map(({ images }) => images.length),
        wanted,
      )
    }
  })

  test('more images than can be compared are refused', () => {
    const facts = factsOf(alike(2049, ''))
    assert.throws(() => new ImageClusters(facts, byImage(facts, facts.rows), signal), { code: 'TOO_LARGE' })
  })

  test('a signal ends the comparing', async () => {
    const facts = factsOf(alike(12, 'ABCD'))
    await assert.rejects(
      new ImageClusters(facts, byImage(facts, facts.rows), AbortSignal.abort(new Error('enough'))).at(0.5),
      /enough/,
    )
  })
})

describe('the choice', () => {
  test('of one image: what its versions kept; what its newest version alone has is not known', async () => {
    const facts = factsOf({ 'a:1': 'ABCD', 'a:2': 'ABCD', 'a:3': 'ABCD', 'a:4': 'ABCE' })
    const { rows, unclustered, bytes } = await selectChunks(facts, signal)
    assert.deepEqual(letters(facts, rows).sort(), ['B', 'C', 'D'])
    assert.deepEqual(
      unclustered.map((image) => facts.imageName(image)),
      ['a'],
    )
    assert.deepEqual(bytes, { all: 1_600_000, train: 800_000, test: 800_000, missed: 300_000, selected: 300_000 })
  })

  test('of images with one version: nothing, there is nothing to learn from', async () => {
    const facts = factsOf({ 'a:1': 'ABC', 'b:1': 'ABC' })
    assert.deepEqual((await selectChunks(facts, signal)).rows, [])
  })

  test('of nothing: nothing', async () => {
    assert.deepEqual((await selectChunks(factsOf({}), signal)).rows, [])
  })

  test('does not depend on the order in which images were saved', async () => {
    const images = Object.fromEntries(
      Array.from({ length: 12 }, (_, i) =>
        [1, 2, 3].map((version) => [`image-${i}:${version}`, `ABC${'pqrst'[i % 5]}DE`] as const),
      ).flat(),
    )
    const there = factsOf(images)
    const back = factsOf(Object.fromEntries(Object.entries(images).reverse()))
    const choice = async (facts: ChunkFacts): Promise<string[]> =>
      letters(facts, (await selectChunks(facts, signal)).rows).sort()
    const found = await choice(there)
    assert.ok(found.includes('A'))
    assert.deepEqual(await choice(back), found)
  })
})

test('facts: equal rows are one number, all others are not, however many there are', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(3), fc.nat(3), fc.nat(40), fc.maxSafeNat()), { maxLength: 3000 }),
      (tuples) => {
        const facts = new ChunkFacts()
        const known = new Map<string, number>()
        for (const [at, [image, version, digest, offset]] of tuples.entries()) {
          const fact = {
            image: `i${image}`,
            version: `${version}`,
            blobId: 'b',
            digest: `${digest}`,
            crc32c: 0,
            compressedSize: 1,
            uncompressedSize: 1,
            compressedOffset: offset,
            uncompressedOffset: 0,
          }
          facts.add(fact)
          const row = facts.rows[at] ?? -1
          const key = JSON.stringify(fact)
          assert.equal(known.get(key) ?? row, row)
          known.set(key, row)
          assert.deepEqual(
            {
              image: facts.imageName(facts.imageOf(row)),
              version: facts.versionName(facts.releaseOf(row)),
              ...facts.chunk(row),
            },
            fact,
          )
        }
        assert.equal(new Set(known.values()).size, known.size)
      },
    ),
    { numRuns: 30 },
  )
})
