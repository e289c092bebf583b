import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assert as holds, nat, property, uint8Array } from 'fast-check'
import { FileRequest, TooLarge } from './file-request.ts'

function withBody(body: Uint8Array): FileRequest {
  return new FileRequest(Buffer.concat([Buffer.alloc(40), body]))
}

test('only single components are names', () => {
  for (const bad of ['\0', '.\0', '..\0', 'a/b\0', '/\0', '../x\0'])
    assert.equal(withBody(Buffer.from(bad)).name(0), undefined, bad)
  for (const good of ['a', '...', '.a', '..a', 'é'.repeat(100)])
    assert.equal(Buffer.from(withBody(Buffer.from(`${good}\0rest\0`)).name(0) ?? []).toString(), `${good}\0`)
})

test('a request of any bytes gives values or a RangeError, never bytes from outside', () => {
  holds(
    property(uint8Array({ maxLength: 80 }), nat(100), nat(2 ** 31), (body, at, count) => {
      const request = withBody(body)
      const reads: Array<() => unknown> = [
        () => request.word(at),
        () => request.number(at),
        () => request.name(at),
        () => request.data(at, count),
      ]
      for (const read of reads)
        try {
          const value = read()
          if (value instanceof Uint8Array) assert.ok(value.length <= body.length)
        } catch (error) {
          assert.ok(error instanceof RangeError || error instanceof TooLarge, String(error))
        }
    }),
  )
})

test('numbers above 2^53 are refused', () => {
  const body = Buffer.alloc(8)
  body.writeBigUInt64LE(1n << 53n)
  assert.throws(() => withBody(body).number(0), TooLarge)
  body.writeBigUInt64LE((1n << 53n) - 1n)
  assert.equal(withBody(body).number(0), Number.MAX_SAFE_INTEGER)
})
