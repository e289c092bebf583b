import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { imagePath, ImagePaths } from './image-path.ts'

/** What it gives, or how it refuses. */
function outcome(call: () => readonly string[]): readonly string[] | string {
  try {
    return call()
  } catch (error) {
    return String(error)
  }
}

const part = fc.constantFrom('a', 'b', 'usr', '.', '..', '', 'x'.repeat(255), 'x'.repeat(256), 'nul\0', 'caf\u00e9')
const path = fc.array(part, { maxLength: 4 }).map((parts) => Buffer.from(parts.join('/')))

test('paths one after the other are taken apart as each alone', () => {
  fc.assert(
    fc.property(fc.array(path, { maxLength: 12 }), (paths) => {
      const together = new ImagePaths()
      for (const one of paths)
        assert.deepEqual(
          outcome(() => together.names(one)),
          outcome(() => imagePath(one)),
        )
    }),
  )
})

test('names of siblings do not depend on what was done with those before', () => {
  const paths = new ImagePaths()
  const first = paths.names(Buffer.from('./usr/lib/a'))
  assert.deepEqual(paths.names(Buffer.from('./usr/lib/b')), ['usr', 'lib', 'b'])
  assert.deepEqual(first, ['usr', 'lib', 'a'])
})
