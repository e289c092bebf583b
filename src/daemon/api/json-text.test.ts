import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { BodyError, parseLogLevel, parseMountRequest, parseStrings } from './bodies.ts'
import { findFault } from './json-text.ts'

test('faults are worded as upstream words them', () => {
  const cases: ReadonlyArray<readonly [string, string, number]> = [
    ['{"log_level":', 'EOF while parsing a value', 13],
    ['hello', 'expected value', 1],
    ['{nope}', 'key must be a string', 2],
    ['{', 'EOF while parsing an object', 1],
    [' '.repeat(51_200), 'EOF while parsing a value', 51_200],
  ]
  for (const [text, what, column] of cases) assert.deepEqual(findFault(text), { what, line: 1, column })
})

test('missing and wrong members are worded as upstream words them', () => {
  const wire = (act: () => unknown): string => {
    try {
      act()
    } catch (error) {
      if (error instanceof BodyError) return error.wire
      throw error
    }
    return ''
  }
  assert.equal(
    wire(() => parseLogLevel('{}')),
    'ParseBody(Error("missing field `log_level`", line: 1, column: 2))',
  )
  assert.equal(
    wire(() => parseStrings('{"proxy_url": 1}')),
    'ParseBody(Error("invalid type: integer `1`, expected a string", line: 1, column: 15))',
  )
  assert.equal(
    wire(() => parseMountRequest('{"fs_type": "rafs", "source": "x"}')),
    'ParseBody(Error("missing field `config`", line: 1, column: 34))',
  )
  assert.equal(parseLogLevel('{"log_level":"WARN"}'), 'warn')
  assert.equal(parseLogLevel('{"log_level":"loud"}'), undefined)
})

test('every text that is no JSON has a fault inside of it', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.json().chain((text) => fc.nat(text.length).map((end) => text.slice(0, end))),
      ),
      (text) => {
        try {
          JSON.parse(text)
        } catch {
          const fault = findFault(text)
          assert.ok(fault.line >= 1 && fault.column >= 0 && fault.column <= text.length)
        }
      },
    ),
  )
})
