import assert from 'node:assert/strict'
import { createCipheriv, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { PageCipher } from './index.ts'

test('pages are those of AES-128-XTS with a tweak of zeros', () => {
  for (let round = 0; round < 20; round += 1) {
    const key = randomBytes(32)
    const plain = randomBytes(4096 * (1 + (round % 3)))
    const wanted = Array.from({ length: plain.length / 4096 }, (_, page) =>
      createCipheriv('aes-128-xts', key, Buffer.alloc(16)).update(plain.subarray(page * 4096, page * 4096 + 4096)),
    )
    const cipher = new PageCipher(key)
    const encrypted = cipher.encrypt(plain)
    assert.deepEqual(Buffer.from(encrypted), Buffer.concat(wanted))
    assert.deepEqual(Buffer.from(cipher.decrypt(encrypted)), plain)
  }
})

test('keys with equal halves, keys of another size and parts of pages are refused', () => {
  assert.throws(() => new PageCipher(Buffer.alloc(32, 7)), RangeError)
  assert.throws(() => new PageCipher(randomBytes(16)), RangeError)
  assert.throws(() => new PageCipher(randomBytes(32)).encrypt(new Uint8Array(4095)), RangeError)
})
