/** A second of damaged input for each reader, and that the fuzzer sees what it looks for. `npm run fuzz` goes on for longer. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { TARGETS } from './fuzz/targets.ts'
import { type Answer, fuzzInThread } from './fuzz/thread.ts'

const LIMITS = { seconds: 1, runs: Number.POSITIVE_INFINITY, seed: 1 }
const module = new URL('fuzz/targets.ts', import.meta.url).href
const odd = new URL('fuzz/odd-targets.ts', import.meta.url).href

for (const target of Object.keys(TARGETS))
  test(`a second of damaged input: ${target}`, { timeout: 180_000 }, async () => {
    const answer = await fuzzInThread({ ...LIMITS, target, module })
    assert.ok('result' in answer, 'find' in answer ? `${answer.find.what}\n${answer.find.stack}` : '')
    assert.ok(answer.result.runs > 0)
  })

test('a batch is read, however little time there is', async () => {
  const answer = await fuzzInThread({ ...LIMITS, seconds: 0, target: 'sound', module: odd })
  assert.ok('result' in answer && answer.result.runs > 0)
})

async function runOdd(target: string, more: { readonly hangMs?: number } = {}): Promise<Answer> {
  return await fuzzInThread({ ...LIMITS, seconds: 60, runs: 2000, target, module: odd, ...more })
}

test('the fuzzer lets a sound reader pass', async () => {
  const answer = await runOdd('sound')
  assert.ok('result' in answer)
  assert.ok(answer.result.refused > 0 && answer.result.refused < answer.result.runs)
})

for (const [target, what] of [
  ['throws', /^TypeError: of undefined$/],
  ['hangs', /^is still being read after 1\.5 s$/],
  ['slow', /^took \d+ ms$/],
  ['greedy', /^took \d+ MiB of memory$/],
  ['moody', /^answers call \d+, then call \d+$/],
] as const)
  test(`the fuzzer finds a reader that is ${target}`, { timeout: 180_000 }, async () => {
    // The others may be slow on a busy machine, and are not to be taken for one that hangs.
    const answer = await runOdd(target, target === 'hangs' ? { hangMs: 1500 } : {})
    assert.ok('find' in answer)
    assert.match(answer.find.what, what)
    assert.notEqual(Buffer.from(answer.find.input).readUInt32LE(), 0x0707_0707)
  })

test('the same seed finds the same input', async () => {
  const [one, two] = [await runOdd('throws'), await runOdd('throws')]
  assert.ok('find' in one && 'find' in two)
  assert.deepEqual(one.find.input, two.find.input)
})
