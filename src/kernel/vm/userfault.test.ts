import assert from 'node:assert/strict'
import { test } from 'node:test'
import { addressOf, FaultMemory, readMemory, UserFaults, whyNoFaults } from './index.ts'

const HUGE_PAGE = 2 << 20

for (const [pages, size] of [
  ['small', 4096],
  ['huge', HUGE_PAGE],
] as const)
  test(`pages that are there stay, and the others are filled: ${pages} pages`, {
    skip: whyNoFaults(3 * size, pages) ?? false,
  }, (t) => {
    const memory = new FaultMemory(3 * size, pages)
    const faults = new UserFaults(memory.fd)
    t.after(() => memory.close())
    const [old, fresh] = [Buffer.alloc(size, 'old'), Buffer.alloc(3 * size, 'fresh')]
    faults.copy(memory.address + size, addressOf(old), size)
    faults.copy(memory.address, addressOf(fresh), 3 * size)
    const wanted = Buffer.concat([fresh.subarray(0, size), old, fresh.subarray(2 * size)])
    assert.ok(readMemory(memory.address, 3 * size).equals(wanted))
    faults.copy(memory.address, addressOf(fresh), 3 * size)
    assert.ok(readMemory(memory.address, 3 * size).equals(wanted))
  })
