import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from './clock.ts'
import { type PrefetchPlace, Schedule } from './schedule.ts'

/** A clock that stands until it is turned. */
class HandClock implements Clock {
  #now = 0
  readonly #sleepers: Array<{ readonly until: number; readonly resolve: () => void }> = []

  /** Times that somebody looked at it. */
  looks = 0

  now(): number {
    this.looks += 1
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
  place: PrefetchPlace | undefined
}

function start(schedule: Schedule, stored = 1000, signal = new AbortController().signal): Started {
  const started: Started = { isStarted: false, place: undefined }
  schedule.startPrefetch(stored, 0, signal).then(
    (place) => Object.assign(started, { isStarted: true, place }),
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
  one.place?.arrived(500)
  await settled()
  assert.ok(three.isStarted, 'while what came is decoded')
  one.place?.end()
  const four = start(schedule)
  await settled()
  assert.equal(four.isStarted, false, 'a place is given back once')
})

test('what came and is not decoded yet counts as memory', async () => {
  const { schedule } = made()
  const place = await schedule.startPrefetch(1000, 90 << 20, new AbortController().signal)
  place.arrived(1000)
  const next = start(schedule)
  await settled()
  assert.equal(next.isStarted, false, 'prefetch has less of it')
  assert.equal(schedule.tryDemand(10 << 20), false)
  place.end()
  await settled()
  assert.ok(next.isStarted && schedule.tryDemand(10 << 20))
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
  const prefetch = start(schedule, 1000, abort.signal)
  await settled()
  abort.abort(new Error('stopped'))
  schedule.endDemand(10)
  await clock.turn(1000)
  assert.equal(prefetch.isStarted, false)
})

test('prefetch keeps to its bandwidth', async () => {
  const { schedule, clock } = made({ prefetchBandwidth: 1000, prefetchRequests: 1 })
  const first = start(schedule)
  await settled()
  await clock.turn(1000)
  first.place?.arrived(5000)
  const next = start(schedule)
  await settled()
  await clock.turn(3900)
  assert.equal(next.isStarted, false, '5000 bytes are worth five seconds, one of them was before')
  await clock.turn(200)
  assert.ok(next.isStarted)
})

test('pieces fit to the speed of the link: a reader waits for one only shortly', async () => {
  const { schedule, clock } = made()
  const { signal } = new AbortController()
  const smallest = schedule.pieceBytes
  const [one, two] = [
    await schedule.startPrefetch(625_000, 0, signal),
    await schedule.startPrefetch(624_000, 0, signal),
  ]
  await clock.turn(5)
  one.filled(1000)
  two.filled(1000)
  await clock.turn(100) // which both share
  one.filled(625_000)
  two.filled(624_000)
  two.arrived(624_000)
  one.end()
  assert.ok(Math.abs(schedule.pieceBytes - 312_500) < 1000, `${schedule.pieceBytes} bytes take 25 ms`)
  const failed = await schedule.startPrefetch(1000, 0, signal)
  failed.filled(1)
  await clock.turn(1000)
  failed.arrived(0)
  assert.ok(Math.abs(schedule.pieceBytes - 312_500) < 1000, 'a failure tells nothing of the speed')
  assert.ok(schedule.pieceBytes > smallest)
})

test('the next request goes out a round trip before the last byte of those before it', async () => {
  const { schedule, clock } = made({ prefetchRequests: 4 })
  const [one, two] = [start(schedule, 500_000), start(schedule, 500_000)]
  await clock.turn(60)
  one.place?.filled(1000)
  await clock.turn(100)
  one.place?.arrived(500_000) // some 5,000 bytes a millisecond
  const next = start(schedule, 100_000)
  await settled()
  assert.equal(next.isStarted, false)
  two.place?.filled(40_000)
  await settled()
  assert.equal(next.isStarted, false, 'more is coming than the link carries in 90 ms')
  two.place?.filled(80_000)
  await settled()
  assert.ok(next.isStarted)
})

test('who waits for the link is not woken by every piece that comes', async () => {
  const { schedule, clock } = made({ prefetchRequests: 8 })
  const [one] = [start(schedule, 500_000), start(schedule, 500_000)]
  await settled()
  const waiting = [start(schedule), start(schedule), start(schedule)]
  await settled()
  const before = clock.looks
  for (let piece = 1; piece <= 50; piece += 1) {
    one.place?.filled(piece * 1000)
    await settled()
  }
  assert.equal(clock.looks - before, 50, 'one look a piece, none of those who wait')
  one.place?.end()
  await settled()
  assert.ok(waiting.some(({ isStarted }) => isStarted))
})

test('who waits is told of an abort, and does not stay', async () => {
  const { schedule } = made()
  const busy = [start(schedule), start(schedule)]
  await settled()
  const stop = new AbortController()
  const waiting = schedule.startPrefetch(1000, 0, stop.signal)
  const other = start(schedule)
  stop.abort(new Error('prefetch was stopped'))
  await assert.rejects(waiting, /was stopped/)
  busy[0]?.place?.end()
  await settled()
  assert.ok(other.isStarted)
})
