import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import { MemoryStore } from './memory-store.ts'

const MIB = 2 ** 20

test('chunks of a few bytes are counted with what they take besides', () => {
  const store = new MemoryStore(MIB)
  const chunks = 100_000
  for (let chunk = 0; chunk < chunks; chunk += 1) store.put(0, chunk, Uint8Array.of(chunk & 255))
  let kept = 0
  for (let chunk = 0; chunk < chunks; chunk += 1) if (store.has(0, chunk)) kept += 1
  assert.ok(kept > 1000 && kept <= 2048, `${kept} chunks of one byte in 1 MiB`)
  assert.ok(store.has(0, chunks - 1) && !store.has(0, 0), 'the oldest go first')
})

test('a chunk larger than the budget is not kept, and takes no other one’s place', () => {
  const store = new MemoryStore(2048)
  store.put(0, 1, Buffer.from('small'))
  store.put(0, 2, new Uint8Array(2048))
  assert.deepEqual([store.has(0, 1), store.has(0, 2)], [true, false])
  store.clear()
  assert.equal(store.get(0, 1), undefined)
  store.put(0, 1, Buffer.from('again'))
  assert.deepEqual(store.get(0, 1), Uint8Array.from(Buffer.from('again')))
})

test('what is kept are copies of the most recently used chunks, as in a list that is searched', () => {
  const use = fc.record({
    blob: fc.nat(2),
    chunk: fc.oneof(fc.nat(6), fc.constant(2 ** 32 - 1)),
    isPut: fc.boolean(),
    length: fc.nat(700),
  })
  fc.assert(
    fc.property(fc.array(use, { maxLength: 200 }), (uses) => {
      const budget = 8192
      const store = new MemoryStore(budget)
      let model: Array<{ readonly key: string; readonly bytes: Uint8Array }> = []
      for (const { blob, chunk, isPut, length } of uses) {
        const key = `${blob}:${chunk}`
        const known = model.find((each) => each.key === key)
        if (isPut && known === undefined) {
          const bytes = new Uint8Array(length).fill(model.length)
          store.put(blob, chunk, bytes)
          model.push({ key, bytes: Uint8Array.from(bytes) })
          while (model.reduce((sum, each) => sum + each.bytes.length + 512, 0) > budget) model.shift()
          bytes.fill(255)
        } else if (!isPut) {
          assert.deepEqual(store.get(blob, chunk), known?.bytes)
          if (known !== undefined) model = [...model.filter((each) => each !== known), known]
        }
        for (const each of model) {
          const [of, at] = each.key.split(':').map(Number)
          assert.ok(store.has(of ?? 0, at ?? 0), `${each.key} is kept`)
        }
      }
    }),
  )
})
