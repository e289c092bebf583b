import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as fc from 'fast-check'
import type { Backend, ReadOptions } from './backend.ts'
import type { Subject } from './conformance.ts'
import { backendConformance, patience, pattern, sha256 } from './conformance.ts'
import { abortedRead, BackendError, checkRange } from './errors.ts'
import { withLimits } from './limits.ts'
import { BackendMetrics, withMetrics } from './metrics.ts'
import type { RetryClock } from './retry.ts'
import { withRetry } from './retry.ts'

/** A backend in memory. `step` is asked before each piece of a read; what it throws ends the read. */
class MemoryBackend implements Backend {
  readonly name = 'memory'
  readonly blobs = new Map<string, Uint8Array>()
  readonly asked: Array<readonly [offset: number, length: number]> = []
  step: (position: number, signal: AbortSignal) => Promise<void> | void = () => {}
  #closed = false

  async open(blobId: string): ReturnType<Backend['open']> {
    if (this.#closed) throw new BackendError('CLOSED', 'closed')
    if (!/^\w{1,64}$/.test(blobId)) throw new BackendError('BAD_OPTION', 'bad id')
    const bytes = this.blobs.get(blobId)
    if (bytes === undefined) throw new BackendError('NOT_FOUND', `no blob ${blobId}`)
    let open = true
    const check = (signal: AbortSignal): void => {
      if (!open || this.#closed) throw new BackendError('CLOSED', 'closed')
      if (signal.aborted) throw abortedRead('read', signal)
    }
    return {
      size: async (signal) => {
        check(signal)
        return bytes.length
      },
      read: async (offset, into, options) => {
        checkRange('read', offset, into.length)
        this.asked.push([offset, into.length])
        for (let filled = 0; filled < into.length; ) {
          await this.step(offset + filled, options.signal)
          check(options.signal)
          const part = bytes.subarray(offset + filled, offset + Math.min(into.length, filled + 50_000))
          if (part.length === 0) throw new BackendError('TRUNCATED', 'short', { retryable: false })
          into.set(part, filled)
          filled += part.length
          options.onFilled?.(filled)
        }
        check(options.signal)
      },
      close: async () => {
        open = false
      },
    }
  }

  async close(): Promise<void> {
    this.#closed = true
  }
}

function clock(random = 1): RetryClock & { readonly sleeps: number[] } {
  const sleeps: number[] = []
  return {
    sleeps,
    random: () => random,
    async sleep(ms, signal) {
      signal.throwIfAborted()
      sleeps.push(ms)
    },
  }
}

const RETRY = { attempts: 4, baseDelayMs: 100, maxDelayMs: 300 }
const CONTENT = pattern(1_000_000)

function filled(step?: MemoryBackend['step']): MemoryBackend {
  const backend = new MemoryBackend()
  backend.blobs.set('blob', CONTENT)
  if (step !== undefined) backend.step = step
  return backend
}

/** A step that fails at the given positions, once each. */
function failingAt(positions: readonly number[], error: () => BackendError): MemoryBackend['step'] {
  const left = [...positions]
  return (position) => {
    if (position !== left[0]) return
    left.shift()
    throw error()
  }
}

async function readAll(backend: Backend, options: ReadOptions = patience()): Promise<void> {
  const reader = await backend.open('blob')
  const into = Buffer.alloc(CONTENT.length)
  await reader.read(0, into, options)
  assert.ok(into.equals(CONTENT))
}

backendConformance('memory with all wrappers', async (): Promise<Subject> => {
  const memory = new MemoryBackend()
  memory.step = () => new Promise((resolve) => setImmediate(resolve))
  const measured = withMetrics(withLimits(memory, { concurrent: 3 }), new BackendMetrics('memory'))
  const backend = withRetry(measured, { attempts: 3, baseDelayMs: 1, maxDelayMs: 2 })
  return {
    backend,
    async put(bytes) {
      memory.blobs.set(sha256(bytes), bytes)
      return sha256(bytes)
    },
    [Symbol.asyncDispose]: () => backend.close(),
  }
})

test('retry goes on where a read stopped, and waits longer each time', async () => {
  const backend = filled(failingAt([0, 0, 50_000], () => new BackendError('SERVER', 'ill')))
  const time = clock()
  const told: number[] = []
  await readAll(withRetry(backend, RETRY, time), { ...patience(), onFilled: (filled) => told.push(filled) })
  assert.deepEqual(backend.asked, [
    [0, 1_000_000],
    [0, 1_000_000],
    [0, 1_000_000],
    [50_000, 950_000],
  ])
  assert.deepEqual(time.sleeps, [100, 200, 300])
  assert.equal(told.at(-1), 1_000_000)
  assert.ok(told.every((filled, index) => filled > (told[index - 1] ?? 0)))
})

test('retry has full jitter', async () => {
  const time = clock(0.25)
  await readAll(withRetry(filled(failingAt([0], () => new BackendError('TIMEOUT', 'late'))), RETRY, time))
  assert.deepEqual(time.sleeps, [25])
})

test('retry does what Retry-After says, up to its cap', async () => {
  const times = [2000, 900_000]
  const error = (): BackendError => new BackendError('RATE_LIMITED', 'slow down', { retryAfterMs: times.shift() ?? 0 })
  const time = clock()
  await readAll(withRetry(filled(failingAt([0, 0], error)), RETRY, time))
  assert.deepEqual(time.sleeps, [2000, 60_000])
})

test('retry gives up after its attempts with the last error, and at once when it is hopeless', async () => {
  const ill = filled(() => {
    throw new BackendError('SERVER', 'ill', { status: 503 })
  })
  await assert.rejects(readAll(withRetry(ill, RETRY, clock())), { code: 'SERVER', status: 503, attempts: 4 })
  assert.equal(ill.asked.length, 4)
  const gone = filled(() => {
    throw new BackendError('FORBIDDEN', 'no')
  })
  await assert.rejects(readAll(withRetry(gone, RETRY, clock())), { code: 'FORBIDDEN' })
  assert.equal(gone.asked.length, 1)
})

test('a read that gets on does not use up its attempts', async () => {
  const places = [100_000, 200_000, 300_000, 400_000, 500_000, 600_000]
  await readAll(withRetry(filled(failingAt(places, () => new BackendError('TRUNCATED', 'cut'))), RETRY, clock()))
})

test('the wait for another try ends with the signal, and with close', async () => {
  const ill = filled(() => {
    throw new BackendError('SERVER', 'ill')
  })
  const slow = withRetry(ill, { attempts: 9, baseDelayMs: 60_000, maxDelayMs: 60_000 })
  await assert.rejects(readAll(slow, { signal: AbortSignal.timeout(30) }), { code: 'TIMEOUT', message: /ill/ })
  const reader = await slow.open('blob')
  const reading = assert.rejects(reader.read(0, Buffer.alloc(9), patience()), { code: 'CLOSED' })
  setTimeout(() => void reader.close(), 20)
  await reading
})

test('whatever fails wherever, a retried read gives the right bytes or an error', async () => {
  const faults = fc.array(fc.nat({ max: 19 }), { maxLength: 12 })
  const property = fc.asyncProperty(faults, fc.nat({ max: 900_000 }), async (pieces, offset) => {
    const plan = pieces.toSorted((a, b) => a - b).map((piece) => offset + piece * 50_000)
    const backend = withRetry(filled(failingAt(plan, () => new BackendError('TRUNCATED', 'cut'))), RETRY, clock())
    const into = Buffer.alloc(Math.min(500_000, CONTENT.length - offset))
    const reader = await backend.open('blob')
    const error = await reader.read(offset, into, patience()).catch((reason: unknown) => reason)
    if (error === undefined) assert.ok(into.equals(CONTENT.subarray(offset, offset + into.length)))
    else assert.ok(error instanceof BackendError)
  })
  await fc.assert(property, { numRuns: 60 })
})

test('limits let so many through and no more; who waits can leave', async () => {
  let inside = 0
  let most = 0
  const gate = Promise.withResolvers<void>()
  const backend = filled(async () => {
    inside += 1
    most = Math.max(most, inside)
    await gate.promise
    inside -= 1
  })
  const limited = withLimits(backend, { concurrent: 2 })
  const reader = await limited.open('blob')
  const reads = Array.from({ length: 6 }, () => reader.read(0, Buffer.alloc(10), patience()))
  const leaver = new AbortController()
  const left = assert.rejects(reader.read(0, Buffer.alloc(10), { signal: leaver.signal }), { code: 'ABORTED' })
  leaver.abort()
  await left
  assert.equal(most, 2)
  gate.resolve()
  await Promise.all(reads)
  assert.equal(most, 2)
  assert.equal(backend.asked.length, 6)
  assert.throws(() => withLimits(backend, { concurrent: 0 }), { code: 'BAD_OPTION' })
})

test('closing a limited backend ends those who wait', async () => {
  const gate = Promise.withResolvers<void>()
  const limited = withLimits(
    filled(() => gate.promise),
    { concurrent: 1 },
  )
  const reader = await limited.open('blob')
  const running = reader.read(0, Buffer.alloc(10), patience()).catch(() => {})
  const waiting = assert.rejects(reader.read(0, Buffer.alloc(10), patience()), { code: 'CLOSED' })
  await limited.close()
  await waiting
  gate.resolve()
  await running
})

test('metrics count reads, bytes, errors and sizes as nydusd does', async () => {
  const metrics = new BackendMetrics('registry')
  const backend = withMetrics(filled(failingAt([500_000], () => new BackendError('TRUNCATED', 'cut'))), metrics)
  const reader = await backend.open('blob')
  for (const length of [10, 1023, 1024, 5000, 70_000, 200_000]) await reader.read(0, Buffer.alloc(length), patience())
  await assert.rejects(reader.read(0, Buffer.alloc(1_000_000), patience()), { code: 'TRUNCATED' })
  const json = metrics.toJSON()
  assert.deepEqual(json.read_count_block_size_dist, [2, 1, 1, 0, 1, 1, 1, 0])
  assert.equal(json.backend_type, 'registry')
  assert.deepEqual([json.read_count, json.read_errors], [7, 1])
  assert.equal(json.read_amount_total, 10 + 1023 + 1024 + 5000 + 70_000 + 200_000 + 1_000_000)
  assert.equal(metrics.bytesReceived, json.read_amount_total - 500_000)
  assert.equal(metrics.inFlight, 0)
  assert.equal(
    json.read_latency_sizes_dist.flat().reduce((sum, count) => sum + count, 0),
    7,
  )
  metrics.record({ bytesRequested: 1 << 20, bytesReceived: 0, latencyMs: 20, failed: false })
  metrics.record({ bytesRequested: 1 << 20, bytesReceived: 0, latencyMs: 5000, failed: false })
  assert.deepEqual(metrics.toJSON().read_latency_sizes_dist[7], [0, 1, 0, 0, 0, 0, 0, 1])
})
