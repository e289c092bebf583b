import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from './clock.ts'
import { Schedule } from './schedule.ts'

/** A clock that stands until it is turned. */
class HandClock implements Clock {
  #now = 0
  readonly #sleepers: Array<{ readonly until: number; readonly resolve: () => void }> = []

  now(): number {
    return this.#now
  }

  sleep(ms: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    this.#sleepers.push({ until: this.#now + ms, resolve })
    return promise
  }

  async turn(ms: number): Promise<void> {
    this.#now += ms
    for (const { until, resolve } of this.#sleepers) if (until <= this.#now) resolve()
    await settled()
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

interface Started {
  isStarted: boolean
}

function start(schedule: Schedule, signal = new AbortController().signal): Started {
  const started = { isStarted: false }
  schedule.startPrefetch(1000, signal).then(
    () => (started.isStarted = true),
    () => undefined,
  )
  return started
}

function made(limits = {}): { clock: HandClock; schedule: Schedule; frees: { count: number } } {
  const clock = new HandClock()
  const frees = { count: 0 }
  const all = { demandRequests: 2, prefetchRequests: 2, prefetchBandwidth: 0, ...limits }
  return { clock, frees, schedule: new Schedule(all, clock, () => frees.count++) }
}

test('demand has its number of requests, and is told when one ends', () => {
  const { schedule, frees } = made()
  assert.ok(schedule.tryDemand(10) && schedule.tryDemand(10))
  assert.equal(schedule.tryDemand(10), false)
  schedule.endDemand(10)
  assert.equal(frees.count, 1)
  assert.ok(schedule.tryDemand(10))
})

test('requests under way have a bound in memory, but one always goes', () => {
  const { schedule } = made({ demandRequests: 100 })
  assert.ok(schedule.tryDemand(1 << 30))
  assert.equal(schedule.tryDemand(1), false)
  schedule.endDemand(1 << 30)
  assert.ok(schedule.tryDemand(90 << 20))
  assert.equal(schedule.tryDemand(10 << 20), false)
})

test('prefetch goes out at once on a free link, up to its number of requests', async () => {
  const { schedule } = made()
  const [one, two, three] = [start(schedule), start(schedule), start(schedule)]
  await settled()
  assert.deepEqual([one.isStarted, two.isStarted, three.isStarted], [true, true, false])
  schedule.endPrefetch(1000, 500, 10)
  await settled()
  assert.ok(three.isStarted)
})

test('prefetch waits while a reader waits, and a little longer', async () => {
  const { schedule, clock } = made()
  schedule.readBegins()
  const prefetch = start(schedule)
  await clock.turn(10_000)
  assert.equal(prefetch.isStarted, false)
  schedule.readEnds()
  await settled()
  assert.equal(prefetch.isStarted, false, 'the reader may ask for more')
  await clock.turn(40)
  assert.ok(prefetch.isStarted)
})

test('prefetch waits for demand requests too, and can be called off', async () => {
  const { schedule, clock } = made()
  schedule.tryDemand(10)
  const abort = new AbortController()
  const prefetch = start(schedule, abort.signal)
  await settled()
  abort.abort(new Error('stopped'))
  schedule.endDemand(10)
  await clock.turn(1000)
  assert.equal(prefetch.isStarted, false)
})

test('prefetch keeps to its bandwidth', async () => {
  const { schedule, clock } = made({ prefetchBandwidth: 1000, prefetchRequests: 1 })
  start(schedule)
  await settled()
  await clock.turn(1000)
  schedule.endPrefetch(1000, 5000, 10)
  const next = start(schedule)
  await settled()
  await clock.turn(3900)
  assert.equal(next.isStarted, false, '5000 bytes are worth five seconds, one of them was before')
  await clock.turn(200)
  assert.ok(next.isStarted)
})

test('pieces fit to the speed of the link: a reader waits for one only shortly', async () => {
  const { schedule } = made()
  const smallest = schedule.pieceBytes
  await schedule.startPrefetch(1000, new AbortController().signal)
  schedule.endPrefetch(1000, 12_500_000, 1000)
  assert.equal(schedule.pieceBytes, 312_500)
  await schedule.startPrefetch(1000, new AbortController().signal)
  schedule.endPrefetch(1000, 1000, 1000)
  await schedule.startPrefetch(1000, new AbortController().signal)
  schedule.endPrefetch(1000, 0, 1000)
  assert.ok(schedule.pieceBytes < 312_500 && schedule.pieceBytes >= smallest, 'a failure tells nothing of the speed')
})
