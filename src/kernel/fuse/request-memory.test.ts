import assert from 'node:assert/strict'
import { closeSync, openSync, readSync } from 'node:fs'
import { test } from 'node:test'
import { libc } from '../syscall.ts'
import { requestMemory } from './request-memory.ts'
import { PAGE } from './wire.ts'

/** Of each whole page of these bytes: whether it takes memory. Source: Documentation/admin-guide/mm/pagemap.rst, bits 61 (file page or shared) and 63 (present). */
function presentPages(bytes: Uint8Array): boolean[] {
  const first = Math.ceil(libc().address(bytes) / PAGE)
  const count = Math.floor(bytes.length / PAGE) - 1
  const entries = Buffer.alloc(8 * count)
  const fd = openSync('/proc/self/pagemap', 'r')
  try {
    assert.equal(readSync(fd, entries, 0, entries.length, first * 8), entries.length)
  } finally {
    closeSync(fd)
  }
  return Array.from({ length: count }, (_unused, page) => entries.readUInt8(8 * page + 7) >> 7 === 1)
}

test('memory for requests is there before the first one comes: a thread that is killed cannot wait for it', () => {
  const size = 4 << 20
  const [plain, head, all] = [new ArrayBuffer(size), requestMemory(size, false), requestMemory(size, true)].map(
    (memory) => presentPages(new Uint8Array(memory)),
  )
  assert.ok(plain?.includes(false), 'untouched memory looks as if it were there: this test proves nothing')
  assert.equal(head?.[0], true)
  assert.equal(head?.at(-1), false)
  assert.deepEqual(
    all?.filter((isPresent) => !isPresent),
    [],
  )
})
