import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { GrowBudget } from './grow-budget.ts'
import { type ChunkPlace, type FetchLimits, type PlannedBlob, planFetch } from './plan.ts'

const KIB = 1024
const LIMITS: FetchLimits = { joinGapBytes: 0, growBytes: 0, maxStoredBytes: 1 << 20, maxPlainBytes: 4 << 20 }

/** A blob of chunks of 10 KiB, decoded 20 KiB, one after another; those of `here` are not missing. */
function blob(chunkCount: number, here: readonly number[] = []): PlannedBlob {
  return {
    chunkCount,
    place: (chunk: number, into: ChunkPlace) => {
      into.compressedOffset = chunk * 10 * KIB
      into.storedSize = 10 * KIB
      into.plainSize = 20 * KIB
      return chunk < chunkCount
    },
    isMissing: (chunk) => !here.includes(chunk),
  }
}

interface Case {
  readonly name: string
  readonly wanted: readonly number[]
  readonly here?: readonly number[]
  readonly limits?: Partial<FetchLimits>
  readonly requests: readonly (readonly number[])[]
}

const CASES: readonly Case[] = [
  { name: 'nothing wanted, nothing asked', wanted: [], requests: [] },
  { name: 'one chunk', wanted: [5], requests: [[5]] },
  {
    name: 'neighbours come in one request, in whatever order they are wanted',
    wanted: [7, 5, 6],
    requests: [[5, 6, 7]],
  },
  { name: 'a gap is two requests', wanted: [5, 7], requests: [[5], [7]] },
  {
    name: 'a gap that costs less than a round trip comes along',
    wanted: [5, 7],
    limits: { joinGapBytes: 10 * KIB },
    requests: [[5, 6, 7]],
  },
  {
    name: 'a chunk that the image does not describe is left out',
    wanted: [5, 1000],
    requests: [[5]],
  },
  {
    name: 'grows forward first, then backward with what is left',
    wanted: [10],
    limits: { growBytes: 45 * KIB, maxStoredBytes: 70 * KIB },
    requests: [[10, 11, 12, 13, 14]],
  },
  {
    name: 'grows backward too where what follows is here, a quarter at most',
    wanted: [10],
    here: [11],
    limits: { growBytes: 80 * KIB },
    requests: [[8, 9, 10]],
  },
  {
    name: 'grows no further than to what is here',
    wanted: [10],
    here: [12, 9],
    limits: { growBytes: 1 << 20 },
    requests: [[10, 11]],
  },
  {
    name: 'grows no further than the ends of the blob',
    wanted: [0, 99],
    limits: { growBytes: 30 * KIB },
    requests: [[0, 1], [99]],
  },
  {
    name: 'requests of one plan share what they may grow, and never the same chunk',
    wanted: [10, 13],
    limits: { growBytes: 1 << 20, maxStoredBytes: 40 * KIB },
    requests: [
      [9, 10, 11, 12],
      [13, 14, 15, 16],
    ],
  },
  {
    name: 'a request stays within its bounds',
    wanted: [0, 1, 2, 3, 4],
    limits: { maxStoredBytes: 30 * KIB },
    requests: [
      [0, 1, 2],
      [3, 4],
    ],
  },
  {
    name: 'decoded bytes have a bound too',
    wanted: [0, 1, 2],
    limits: { maxPlainBytes: 40 * KIB },
    requests: [[0, 1], [2]],
  },
]

for (const { name, wanted, here, limits, requests } of CASES) {
  test(`plan: ${name}`, () => {
    const planned = planFetch(wanted, blob(100, here), { ...LIMITS, ...limits })
    assert.deepEqual(
      planned.map(({ chunks }) => chunks),
      requests,
    )
    for (const { chunks, compressedOffset, length, plainLength } of planned) {
      assert.equal(compressedOffset, chunks[0] * 10 * KIB)
      assert.equal(length, chunks.length * 10 * KIB)
      assert.equal(plainLength, chunks.length * 20 * KIB)
    }
  })
}

/** Chunks of 2 KiB, ten of which share a batch that is stored in 10 KiB. */
function batches(chunkCount: number, here: readonly number[] = []): PlannedBlob {
  return {
    chunkCount,
    place: (chunk: number, into: ChunkPlace) => {
      into.compressedOffset = Math.floor(chunk / 10) * 10 * KIB
      into.storedSize = 10 * KIB
      into.plainSize = 2 * KIB
      return chunk < chunkCount
    },
    isMissing: (chunk) => !here.includes(chunk),
  }
}

test('plan: a chunk of a batch brings the others, for the cost of one', () => {
  const [range, ...more] = planFetch([13, 17], batches(40, [11]), LIMITS)
  assert.deepEqual([range?.compressedOffset, range?.length, more.length], [10 * KIB, 10 * KIB, 0])
  assert.deepEqual(range?.chunks, [12, 13, 14, 15, 16, 17, 18, 19])
})

test('plan: batches next to each other come in one request, and each whole', () => {
  const ranges = planFetch([13, 21], batches(40), LIMITS)
  assert.deepEqual(
    ranges.map(({ length, chunks }) => [length, chunks.length, chunks[0]]),
    [[20 * KIB, 20, 10]],
  )
})

test('growth starts small, shrinks while guesses are not read, and comes back when they are', () => {
  const budget = new GrowBudget(1 << 20)
  const touched = new Uint8Array(100)
  const first = budget.next()
  assert.equal(first, 512 * KIB)
  for (let chunk = 0; chunk < 50; chunk++) budget.guessed(touched, chunk, 20 * KIB)
  assert.ok(budget.next() <= 24 * KIB, 'a MiB of unread guesses: hardly any more')
  touched.fill(1)
  assert.ok(budget.next() > first, 'all of them were read')
  budget.demanded(100 << 20)
  assert.equal(budget.next(), 1 << 20, 'never more than allowed')
})

test('unread guesses stay below what was read and a first MiB, however the reads go', () => {
  const budget = new GrowBudget(1 << 20)
  const touched = new Uint8Array(10_000)
  let [unread, read] = [0, 0]
  for (let chunk = 0; chunk < 10_000; chunk++) {
    budget.demanded(10 * KIB)
    read += 10 * KIB
    const grown = budget.next()
    budget.guessed(touched, chunk, grown)
    unread += grown
    assert.ok(unread <= read + (1 << 20))
  }
})

test('plan: wherever an image says that its chunks lie, a request has all bytes of each that it is for, and no chunk twice', () => {
  const place = fc.record({ offset: fc.nat(60 * KIB), size: fc.integer({ min: 1, max: 20 * KIB }) })
  fc.assert(
    fc.property(
      fc.array(place, { minLength: 1, maxLength: 40 }),
      fc.array(fc.nat(39), { minLength: 1, maxLength: 8 }),
      fc.record({ joinGapBytes: fc.nat(8 * KIB), growBytes: fc.nat(100 * KIB) }),
      (places, wanted, limits) => {
        const crafted: PlannedBlob = {
          chunkCount: places.length,
          place: (chunk, into) => {
            const at = places[chunk]
            if (at === undefined) return false
            Object.assign(into, { compressedOffset: at.offset, storedSize: at.size, plainSize: 4096 })
            return true
          },
          isMissing: () => true,
        }
        const ranges = planFetch(wanted, crafted, { ...LIMITS, ...limits })
        for (const { compressedOffset, length, chunks } of ranges) {
          for (const chunk of chunks) {
            const { offset, size } = places[chunk]
            assert.ok(offset >= compressedOffset && offset + size <= compressedOffset + length, `chunk ${chunk}`)
          }
        }
        const all = ranges.flatMap(({ chunks }) => chunks)
        assert.equal(new Set(all).size, all.length)
        for (const chunk of wanted) assert.ok(chunk >= places.length || all.includes(chunk), `${chunk} is left out`)
      },
    ),
    { numRuns: 2000 },
  )
})
