import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { type BlobUse, planCompaction } from './compact-plan.ts'

const LIMITS = { minUsedRatio: 50, compactBlobSize: 100, maxCompactSize: 150 }

/** A blob as `stored/used`, after `=` its kind; with `!` it may not change, with `*` all of it is used. */
function blobs(...texts: readonly string[]): BlobUse[] {
  return texts.map((text) => {
    const [sizes = '', kind = 'zstd'] = text.split('=')
    const [storedSize = 0, usedSize = 0] = sizes.split('/').map(Number)
    return {
      storedSize,
      usedSize,
      kind: kind.replace(/[!*]/, ''),
      mayChange: !kind.includes('!'),
      isWhole: kind.includes('*'),
    }
  })
}

/** Plans as words: `keep`, `drop`, or the numbers of the blobs that are rebuilt into one. */
function planned(limits: Partial<typeof LIMITS>, ...texts: readonly string[]): string {
  return planCompaction(blobs(...texts), { ...LIMITS, ...limits })
    .map((plan) => (plan.kind === 'rebuild' ? plan.from.join('+') : plan.kind))
    .join(' ')
}

describe('a plan', () => {
  for (const [what, limits, texts, wanted] of [
    ['nothing to do', {}, ['900/900', '800/400'], 'keep keep'],
    ['one that nothing uses is dropped', {}, ['900/900', '800/0'], 'keep drop'],
    ['one of which too little is used is rebuilt', {}, ['900/449', '900/450'], '0 keep'],
    ['one of which all is used is not, however large its description', {}, ['900/10=zstd*'], 'keep'],
    ['a ratio of 0 rebuilds none', { minUsedRatio: 0 }, ['900/1'], 'keep'],
    ['small ones are merged into the smallest', {}, ['90/90', '900/900', '50/50'], 'drop keep 2+0'],
    [
      'as long as they fit, then the next begins another',
      {},
      ['70/70', '80/80', '60/60', '65/65'],
      '0+1 drop 2+3 drop',
    ],
    ['one small blob alone stays', {}, ['90/90', '900/900'], 'keep keep'],
    ['one that is rebuilt is as large as what is used of it', {}, ['900/60', '900/70'], '0+1 drop'],
    ['different kinds are not merged', {}, ['20/20=zstd', '20/20=lz4', '20/20=zstd'], '0+2 keep drop'],
    [
      'what may not change stays, used or not',
      {},
      ['20/20', '20/0=zstd!', '20/1=zstd!', '30/30'],
      '0+3 keep keep drop',
    ],
    ['an unknown size counts as what is used', {}, ['0/20', '0/20'], '0+1 drop'],
    ['nothing at all', {}, [], ''],
  ] as const) {
    test(what, () => assert.equal(planned(limits, ...texts), wanted))
  }

  test('every used chunk stays in exactly one blob, and no merged one is too large', () => {
    const use = fc.record({
      mayChange: fc.boolean(),
      storedSize: fc.nat(300),
      usedSize: fc.nat(300),
      isWhole: fc.boolean(),
      kind: fc.constantFrom('a', 'b'),
    })
    fc.assert(
      fc.property(fc.array(use, { maxLength: 30 }), (uses) => {
        const plans = planCompaction(uses, LIMITS)
        const kept = plans.flatMap((plan, index) =>
          plan.kind === 'keep' ? [index] : plan.kind === 'rebuild' ? plan.from : [],
        )
        assert.equal(new Set(kept).size, kept.length)
        for (const [index, { usedSize, mayChange }] of uses.entries())
          assert.equal(kept.includes(index), usedSize > 0 || !mayChange)
        for (const plan of plans) {
          if (plan.kind !== 'rebuild' || plan.from.length < 2) continue
          assert.ok(plan.from.reduce((sum, index) => sum + (uses[index]?.usedSize ?? 0), 0) <= LIMITS.maxCompactSize)
          assert.equal(new Set(plan.from.map((index) => uses[index]?.kind)).size, 1)
        }
      }),
    )
  })
})
