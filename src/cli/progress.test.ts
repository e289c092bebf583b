import assert from 'node:assert/strict'
import { afterEach, beforeEach, describe, mock, test } from 'node:test'
import { createOutput, type ProgressMode } from './output.ts'

describe('progress', () => {
  let written = ''
  const lines = (): string[] => written.trimEnd().split('\n')
  beforeEach(() => {
    written = ''
    mock.timers.enable({ apis: ['Date', 'setInterval'] })
    mock.method(process.stderr, 'write', (text: string) => {
      written += text
      return true
    })
  })
  afterEach(() => {
    mock.timers.reset()
    mock.restoreAll()
  })

  function start(mode: ProgressMode): ReturnType<ReturnType<typeof createOutput>['progress']> {
    return createOutput(mode).progress('reading', { total: 10, unit: 'items' })
  }

  test('of two seconds of work is not shown, of more every two seconds', () => {
    const progress = start('plain')
    progress.advance(1)
    mock.timers.tick(1999)
    assert.equal(written, '')
    mock.timers.tick(1)
    assert.equal(written, 'reading: 1 of 10 in 2.0 s\n')
    progress.advance(1)
    mock.timers.tick(1999)
    assert.equal(lines().length, 1)
    mock.timers.tick(1)
    assert.equal(written, 'reading: 1 of 10 in 2.0 s\nreading: 2 of 10 in 4.0 s\n')
    progress.done()
    mock.timers.tick(60_000)
    progress.advance(1)
    assert.equal(lines().length, 2)
  })

  test('of work that never pauses is shown too', () => {
    mock.timers.reset()
    mock.timers.enable({ apis: ['Date'] }) // time goes by, but no timer gets its turn
    const progress = start('plain')
    for (const [time, total] of [
      [1000, 10],
      [2500, 20],
      [2600, 30],
      [5000, 40],
    ] as const) {
      mock.timers.setTime(time)
      progress.setTotal(total)
      progress.advance(1)
    }
    progress.done()
    assert.equal(written, 'reading: 2 of 20 in 2.5 s\nreading: 4 of 40 in 5.0 s\n')
  })

  test('as a bar makes way for a line, and comes back', async () => {
    const isTerminal = Object.getOwnPropertyDescriptor(process.stderr, 'isTTY')
    Object.defineProperty(process.stderr, 'isTTY', { value: true, configurable: true })
    mock.timers.reset()
    mock.timers.enable({ apis: ['Date'] })
    try {
      const progress = start('auto')
      // Its library is loaded meanwhile.
      await import('cli-progress')
      await new Promise(setImmediate)
      mock.timers.setTime(2500)
      progress.advance(5)
      assert.match(written, /reading \[={15} {15}\] 50% 5 of 10/)
      written = ''
      createOutput('none').note('a line')
      assert.ok(written.endsWith('\u001B[2Ka line\n'), JSON.stringify(written))
      written = ''
      mock.timers.setTime(5000)
      progress.advance(5)
      assert.match(written, /reading \[={30}\] 100% 10 of 10/)
      progress.done()
    } finally {
      Object.defineProperty(process.stderr, 'isTTY', isTerminal ?? { value: undefined, configurable: true })
    }
  })

  test('for programs is a JSON object a line', () => {
    const progress = start('json')
    progress.advance(3)
    progress.setTotal(0)
    mock.timers.tick(2000)
    progress.done()
    assert.equal(written, '{"progress":"reading","done":3,"total":0,"unit":"items","elapsed_s":2}\n')
  })

  test('that nobody asked for is never shown', () => {
    const progress = start('none')
    mock.timers.tick(100_000)
    progress.advance(1)
    progress.done()
    assert.equal(written, '')
  })
})
