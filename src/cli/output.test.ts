import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createOutput, describeError, ExitError, exitCodeOf, formatBytes, formatDuration } from './output.ts'

test('an error is told with its causes, each once', () => {
  const root = new Error('No such file or directory (os error 2)')
  assert.equal(
    describeError(new Error('build failed', { cause: root })),
    'Error: build failed\n\nCaused by:\n    No such file or directory (os error 2)\n',
  )
  assert.equal(
    describeError(new Error('cannot read x: gone', { cause: new Error('gone') })),
    'Error: cannot read x: gone\n',
  )
  const call = new Error("ENOENT: no such file or directory, open 'x.tmp'")
  assert.equal(
    describeError(new Error('cannot write x: ENOENT: no such file or directory', { cause: call })),
    'Error: cannot write x: ENOENT: no such file or directory\n',
  )
  const deep = new Error('top', { cause: new Error('middle', { cause: root }) })
  assert.match(describeError(deep), /Caused by:\n {4}0: middle\n {4}1: No such file/)
  assert.equal(describeError('plain words'), 'Error: plain words\n')
})

test('a chain of causes that bites its tail ends', () => {
  const a = new Error('a')
  a.cause = a
  assert.ok(describeError(a).length < 1000)
})

test('exit codes', () => {
  assert.equal(exitCodeOf(new Error('x')), 1)
  assert.equal(exitCodeOf(new ExitError(2, 'usage')), 2)
  assert.equal(exitCodeOf(undefined), 1)
})

test('sizes and times have the unit that fits', () => {
  assert.deepEqual([12, 2048, 3 << 20, 5 * 1024 ** 3].map(formatBytes), ['12 B', '2.0 KiB', '3.0 MiB', '5.00 GiB'])
  assert.deepEqual([12, 2345].map(formatDuration), ['12 ms', '2.3 s'])
})

test('progress that is over before two seconds leaves no timer', () => {
  const progress = createOutput('plain').progress('reading', { total: 10, unit: 'items' })
  progress.advance(5)
  progress.setTotal(20)
  progress.done()
  progress.done()
})
