import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BlobError, type BlobErrorCode } from '../blob/index.ts'
import { coded } from './errors.ts'

test('a disk that is full while a blob is written is no fault of the source, and no bug', () => {
  const codeOf = (code: BlobErrorCode): unknown => (coded(new BlobError(code, 'why')) as { code: string }).code
  assert.deepEqual((['NO_SPACE', 'TOO_LARGE', 'BAD_META'] as const).map(codeOf), ['OUTPUT', 'TOO_LARGE', 'READBACK'])
})
