import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { BLOCK, checksumFits, HEADER } from './header.ts'

const [CHECKSUM_AT, CHECKSUM_BYTES] = HEADER.checksum

/** The header with its checksum, at `offset` of its memory. */
function summed(bytes: Uint8Array, sumOf: (byte: number) => number, offset: number): Uint8Array {
  const header = new Uint8Array(new ArrayBuffer(offset + BLOCK), offset)
  header.set(bytes)
  header.fill(0x20, CHECKSUM_AT, CHECKSUM_AT + CHECKSUM_BYTES)
  const sum = header.reduce((total, byte) => total + sumOf(byte), 0)
  header.set(Buffer.from(`${Math.max(0, sum).toString(8).padStart(6, '0')}\0 `), CHECKSUM_AT)
  return header
}

const unsigned = (byte: number): number => byte
const signed = (byte: number): number => (byte << 24) >> 24

test('checksums fit wherever in memory a header lies, and after no change of a byte', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: BLOCK, maxLength: BLOCK }),
      fc.nat({ max: 9 }),
      fc.nat({ max: BLOCK - 1 }),
      fc.integer({ min: 1, max: 255 }),
      (bytes, offset, at, change) => {
        const header = summed(bytes, unsigned, offset)
        assert.ok(checksumFits(header))
        if (at >= CHECKSUM_AT && at < CHECKSUM_AT + CHECKSUM_BYTES) return
        const before = header[at] ?? 0
        header[at] = before ^ change
        // A signed sum counts the highest bit as 256 less: that may be what was written.
        assert.ok(!checksumFits(header) || Math.abs((header[at] ?? 0) - before) % 256 === 0)
      },
    ),
  )
})

test('the largest sum fits, and the sums of old tars, which took bytes for signed', () => {
  for (const offset of [0, 1]) assert.ok(checksumFits(summed(new Uint8Array(BLOCK).fill(255), unsigned, offset)))
  const few = new Uint8Array(BLOCK).fill(100)
  few.fill(200, 300, 310)
  for (const offset of [0, 1]) assert.ok(checksumFits(summed(few, signed, offset)))
})
