import assert from 'node:assert/strict'
import { test } from 'node:test'
import { GrowingBytes } from './growing-bytes.ts'

test('bytes that grew are whole, and leave nothing behind', () => {
  const before = process.memoryUsage().arrayBuffers
  const bytes = new GrowingBytes()
  const words = 1 << 20
  for (let word = 0; word < words; word++) {
    const at = bytes.extend(4)
    bytes.view.setUint32(at, word, true)
  }
  const most = words * 4 + 64 * 1024
  const held = process.memoryUsage().arrayBuffers - before
  assert.ok(held <= most, `${held} bytes where ${most} hold them`)
  assert.equal(bytes.bytes.length, words * 4)
  for (let word = 0; word < words; word += 4095) assert.equal(bytes.bytes.readUInt32LE(word * 4), word)
  bytes.clear()
  assert.equal(bytes.bytes.length, 0)
  const left = process.memoryUsage().arrayBuffers - before
  assert.ok(left <= 64 * 1024, `${left} bytes are left`)
  bytes.append(Buffer.from('again'))
  assert.equal(bytes.bytes.toString(), 'again')
})
