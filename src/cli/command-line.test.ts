import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as fc from 'fast-check'
import { readCommandLine, UsageError } from './command-line.ts'
import { createProgram } from './nydus-image/program.ts'
import { jaro, similar } from './similar.ts'

const root = createProgram(new AbortController().signal)
const read = (...argv: string[]): string[] => readCommandLine(root, argv)

describe('all ways to write an option are one', () => {
  for (const words of [['-B', 'x'], ['-B=x'], ['-Bx'], ['--bootstrap', 'x'], ['--bootstrap=x']]) {
    test(words.join(' '), () => assert.deepEqual(read('check', ...words), ['check', '--bootstrap=x']))
  }
  test('switches and a value in one word', () =>
    assert.deepEqual(read('check', '-vBx'), ['check', '--verbose', '--bootstrap=x']))
  test('aliases', () =>
    assert.deepEqual(read('create', '--source-type', 'tar-rafs', '--inline-bootstrap', 'x'), [
      'create',
      '--type=tar-rafs',
      '--blob-inline-meta',
      '--',
      'x',
    ]))
  test('before the command, for all commands', () =>
    assert.deepEqual(read('-l', 'warn', 'check', 'a'), ['check', '--log-level=warn', '--', 'a']))
  test('after operands', () =>
    assert.deepEqual(read('merge', 'a', '-B', 'm', 'b'), ['merge', '--bootstrap=m', '--', 'a', 'b']))
  test('a value that is empty, or has "=" in it', () =>
    assert.deepEqual(read('inspect', 'a', '-R', '', '-L=b=c'), ['inspect', '--request=', '--log-file=b=c', '--', 'a']))
  test('a lone dash is a value', () =>
    assert.deepEqual(read('create', '-D', '-', '-'), ['create', '--blob-dir=-', '--', '-']))
  test('after "--" all is operands', () => assert.deepEqual(read('check', '--', '-v'), ['check', '--', '-v']))
  test('help comes before mistakes behind it', () =>
    assert.deepEqual(read('create', '-h', '--nope'), ['create', '--help']))
  test('help of a command', () => assert.deepEqual(read('help', 'check'), ['check', '--help']))
})

test('no words of a user end in anything but a command line or a usage error', () => {
  const names = [...root.commands.map((command) => command.name()), 'help']
  const flags = root.commands.flatMap((command) =>
    command.options.flatMap(({ short, long }) => [short, long].filter((name) => name !== undefined)),
  )
  const word = fc.oneof(
    fc.constantFrom(...names),
    fc.constantFrom(...flags),
    fc.constantFrom('-', '--', '-=', '--=', ''),
    fc.string(),
  )
  fc.assert(
    fc.property(fc.array(word, { maxLength: 8 }), (argv) => {
      try {
        // What was understood is understood again, and means the same.
        const once = read(...argv)
        assert.deepEqual(read(...once), once)
      } catch (error) {
        assert.ok(error instanceof UsageError, String(error))
        assert.match(error.message, /^error: [^]*\nFor more information, try '--help'\.\n$/)
      }
    }),
  )
})

test('likeness is that of the original', () => {
  assert.equal(jaro('same', 'same'), 1)
  assert.equal(jaro('', 'a'), 0)
  // The textbook's examples.
  assert.equal(jaro('MARTHA', 'MARHTA').toFixed(3), '0.944')
  assert.equal(jaro('DIXON', 'DICKSONX').toFixed(3), '0.767')
  assert.equal(similar('nope', ['fs', 'blob', 'none']), 'none')
  assert.equal(similar('zzz', ['fs', 'blob', 'none']), undefined)
})
