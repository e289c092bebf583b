import assert from 'node:assert/strict'
import { test } from 'node:test'
import { KernelError } from './index.ts'

test('errors say what the kernel said, also where Node has no name for it', () => {
  for (const [errno, code, text] of [
    [28, 'ENOSPC', 'no space left on device'],
    [116, 'ESTALE', 'stale file handle'],
    [122, 'EDQUOT', 'disk quota exceeded'],
  ] as const) {
    const error = new KernelError('write', errno, 'cannot write /a')
    assert.deepEqual([error.code, error.errno, error.call], [code, errno, 'write'])
    assert.equal(error.message, `write failed, cannot write /a: ${text} (${code})`)
  }
})
