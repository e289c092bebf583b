import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32c } from '../codec/index.ts'
import { ChunkInfo, verifyExternalChunk } from './index.ts'

test('a chunk of an external blob is what its checksum says, or an error that says what to do', () => {
  const bytes = Buffer.from('the plain bytes of a chunk')
  const chunk = Object.assign(new ChunkInfo(), { index: 3, uncompressedSize: bytes.length, crc32c: crc32c(bytes) })
  assert.equal(verifyExternalChunk(bytes, chunk, 'models'), bytes)
  const other = Buffer.from(bytes)
  other[5] = 0
  const changed = { code: 'BAD_DIGEST', message: /^chunk 3 of external blob models has the checksum .* restore it/ }
  assert.throws(() => verifyExternalChunk(other, chunk, 'models'), changed)
  const longer = Object.assign(new ChunkInfo(), chunk, { uncompressedSize: bytes.length + 1 })
  assert.throws(() => verifyExternalChunk(bytes, longer, 'models'), changed)
  const without = Object.assign(new ChunkInfo(), { uncompressedSize: bytes.length })
  assert.throws(() => verifyExternalChunk(bytes, without, 'models'), { code: 'BAD_DIGEST', message: /with "crcs"/ })
})
