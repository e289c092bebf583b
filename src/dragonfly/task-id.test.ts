import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HashRing } from './hash-ring.ts'
import { sipHash24 } from './sip-hash.ts'
import { taskId } from './task-id.ts'
import { CHOICES, TASK_IDS } from './testing/original-values.ts'

test('tasks have the names that the original gives them', () => {
  for (const [address, id] of TASK_IDS) assert.equal(taskId(address), id, address)
  assert.equal(taskId('no address'), undefined)
})

test('tasks belong to the peers that the original chooses', () => {
  const ids = TASK_IDS.map(([, id]) => id).filter((id) => id !== undefined)
  const keys = [...ids.slice(0, 12), ...Array.from({ length: 40 }, (_, index) => `task-${index}`), '', 'ü']
  for (const [names, choices] of CHOICES) {
    const ring = new HashRing(names)
    assert.deepEqual(
      keys.map((key) => names.indexOf(ring.find(key) ?? 'none')),
      choices,
    )
    // The order in which a scheduler names its hosts means nothing.
    const turned = new HashRing([...names].reverse())
    for (const key of keys) assert.equal(turned.find(key), ring.find(key))
  }
  assert.equal(new HashRing([]).find('task'), undefined)
})

test('SipHash of every length, as a direct reading of its paper has it', () => {
  for (let length = 0; length < 70; length += 1) {
    const bytes = Buffer.from(Array.from({ length }, (_, index) => (index * 151 + length) & 0xff))
    const [low, high] = sipHash24(bytes)
    assert.equal((BigInt(high) << 32n) | BigInt(low), slowSipHash(bytes), `${length} bytes`)
  }
})

function slowSipHash(bytes: Buffer): bigint {
  const u64 = (value: bigint): bigint => BigInt.asUintN(64, value)
  const left = (value: bigint, bits: bigint): bigint => u64((value << bits) | (value >> (64n - bits)))
  let [v0, v1, v2, v3] = [0x736f6d6570736575n, 0x646f72616e646f6dn, 0x6c7967656e657261n, 0x7465646279746573n]
  const round = (): void => {
    v0 = u64(v0 + v1)
    v1 = left(v1, 13n) ^ v0
    v0 = left(v0, 32n)
    v2 = u64(v2 + v3)
    v3 = left(v3, 16n) ^ v2
    v0 = u64(v0 + v3)
    v3 = left(v3, 21n) ^ v0
    v2 = u64(v2 + v1)
    v1 = left(v1, 17n) ^ v2
    v2 = left(v2, 32n)
  }
  const padded = Buffer.alloc(Math.floor(bytes.length / 8) * 8 + 8)
  bytes.copy(padded)
  padded[padded.length - 1] = bytes.length
  for (let at = 0; at < padded.length; at += 8) {
    const word = padded.readBigUInt64LE(at)
    v3 ^= word
    round()
    round()
    v0 ^= word
  }
  v2 ^= 0xffn
  for (let rounds = 0; rounds < 4; rounds += 1) round()
  return v0 ^ v1 ^ v2 ^ v3
}
