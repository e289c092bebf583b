import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GrowBudget } from './grow-budget.ts'

const KIB = 1024
const MIB = 2 ** 20

/** A budget that has guessed these chunks, a KiB each. */
function guessed(count: number): { readonly budget: GrowBudget; readonly touched: Uint8Array } {
  const [budget, touched] = [new GrowBudget(MIB), new Uint8Array(count)]
  for (let chunk = 0; chunk < count; chunk += 1) budget.guessed(touched, chunk, KIB)
  return { budget, touched }
}

test('guesses that are read late are counted, however many came after them', () => {
  const { budget, touched } = guessed(20_000)
  assert.equal(budget.next(), 0)
  touched.fill(1)
  for (let request = 0; request < 5; request += 1) budget.next()
  assert.equal(budget.next(), MIB)
  assert.ok(budget.isProven)
})

test('guesses that nobody reads are looked at in turns, and stay counted', () => {
  const { budget, touched } = guessed(20_000)
  for (let request = 0; request < 10; request += 1) assert.equal(budget.next(), 0)
  touched.fill(1, 0, 10_000)
  for (let request = 0; request < 10; request += 1) budget.next()
  assert.ok(!budget.isProven)
  assert.equal(budget.next(), 384 * KIB, 'half of them were read')
})

test('where few guesses are read, a request still takes along what a round trip is worth, until half of all is waste', () => {
  const [budget, touched] = [new GrowBudget(MIB), new Uint8Array(1000)]
  let wasted = 0
  budget.demanded(4 * MIB)
  for (let chunk = 0; budget.next() > 0; chunk += 1) {
    const bytes = budget.next()
    if (wasted > 2 * MIB) assert.ok(bytes <= 384 * KIB)
    budget.guessed(touched, chunk, bytes)
    wasted += bytes
  }
  assert.equal(wasted, 5 * MIB)
})
