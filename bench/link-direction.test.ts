import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Direction, Flow } from './link-direction.ts'

/** A sender that is never in the way, and a receiver that counts. */
function ends(): { from: ConstructorParameters<typeof Flow>[0]; to: ConstructorParameters<typeof Flow>[1] } {
  let isPaused = false
  const from = {
    pause: () => void (isPaused = true),
    resume: () => void (isPaused = false),
    isPaused: () => isPaused,
  }
  // sockets, as far as a flow uses them
  return { from: from as never, to: { destroyed: false, write: () => true, end: () => undefined } as never }
}

/** 10 Mbit/s are 1,250 bytes a millisecond. */
const BYTES_A_MS = 1250
/** Bytes of a turn: the last one may have begun. */
const TURN = 8192

test('a link that is looked at late has carried as much as one that is looked at in time', () => {
  for (const everyMs of [1, 25, 200]) {
    const direction = new Direction(BYTES_A_MS * 8000, 1)
    const { from, to } = ends()
    const flow = new Flow(from, to, 1 << 20)
    direction.flows.add(flow)
    flow.accept(Buffer.alloc(500_000), 0)
    let moved = 0
    for (let nowMs = 0; nowMs <= 200; nowMs += everyMs) moved += direction.run(nowMs)
    assert.ok(moved >= 200 * BYTES_A_MS && moved <= 200 * BYTES_A_MS + TURN, `every ${everyMs} ms: ${moved}`)
  }
})

test('what nobody sent in time the link does not carry later', () => {
  const direction = new Direction(BYTES_A_MS * 8000, 1)
  const { from, to } = ends()
  const flow = new Flow(from, to, 1 << 20)
  direction.flows.add(flow)
  direction.run(0)
  flow.accept(Buffer.alloc(500_000), 100)
  const moved = direction.run(200)
  assert.ok(moved >= 100 * BYTES_A_MS && moved <= 100 * BYTES_A_MS + TURN, `${moved}`)
})
