import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test, type TestContext } from 'node:test'
import { UNCHANGING } from '../../index.ts'
import { sharedMemory } from '../fault-memory.ts'
import { FuseQueue } from './fuse-queue.ts'
import { GuestMemory } from './guest-memory.ts'
import { Vring } from './vring.ts'

const GUEST = 0x1000_0000
const USER = 0x7f00_0000_0000
const BYTES = 1 << 16
const AT = { descriptors: 0, available: 0x4000, used: 0x8000, request: 0xc000 }
const FORGET = 2

/** A queue whose first descriptor is a FORGET, and the memory that it lies in. */
function queue(t: TestContext, size: number) {
  const { fd, bytes } = sharedMemory(BYTES)
  const memory = new GuestMemory([{ guest: GUEST, user: USER, size: BYTES, fileOffset: 0, fd }])
  const ring = new Vring()
  t.after(() => {
    ring.close()
    memory.close()
    closeSync(fd)
  })
  const view = Buffer.from(bytes)
  view.writeBigUInt64LE(BigInt(GUEST + AT.request), AT.descriptors)
  view.writeUInt32LE(48, AT.descriptors + 8)
  view.writeUInt32LE(48, AT.request)
  view.writeUInt32LE(FORGET, AT.request + 4)
  ring.size = size
  ring.addresses = { descriptors: USER + AT.descriptors, available: USER + AT.available, used: USER + AT.used }
  ring.attach(memory)
  /** The driver has put in so many requests, ever. */
  const put = (count: number): unknown => view.writeUInt16LE(count, AT.available + 2)
  return { ring, memory, put }
}

test('a driver that has more requests under way than its queue has descriptors is refused; one that takes turns is not', (t) => {
  const { ring, put } = queue(t, 4)
  put(4)
  for (let index = 0; index < 4; index++)
    assert.deepEqual(ring.pop()?.readable, [{ guest: GUEST + AT.request, length: 48 }])
  assert.equal(ring.pop(), undefined)
  ring.push(0, 0)
  put(5)
  assert.ok(ring.pop())
  put(6)
  assert.throws(() => ring.pop(), { code: 'EPROTO' })
  ring.stop() // what was under way belongs to nobody
  assert.ok(ring.pop())
})

test('rings begin where processors can read them', (t) => {
  const { ring, memory } = queue(t, 4)
  const good = { descriptors: USER, available: USER + AT.available, used: USER + AT.used }
  for (const [name, by] of [
    ['descriptors', 8],
    ['available', 1],
    ['used', 2],
  ] as const) {
    ring.addresses = { ...good, [name]: good[name] + by }
    assert.throws(() => ring.attach(memory), { code: 'EFAULT' }, name)
  }
  ring.addresses = good
  ring.attach(memory)
})

test('a full queue is answered in parts', (t) => {
  const { ring, memory, put } = queue(t, 256)
  let forgotten = 0
  const answering = new FuseQueue({
    handler: () => assert.fail('only FORGET was sent'),
    wishes: UNCHANGING,
    onInit: () => undefined,
    onForget: () => forgotten++,
    onError: (error) => assert.ifError(error),
  })
  put(200)
  const seen: Array<readonly [hasMore: boolean, forgotten: number]> = []
  do seen.push([answering.serve({ rings: [ring], memory }, 0), forgotten])
  while (seen.at(-1)?.[0] === true)
  assert.deepEqual(seen, [
    [true, 64],
    [true, 128],
    [true, 192],
    [false, 200],
  ])
})
