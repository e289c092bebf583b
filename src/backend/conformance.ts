/** What every driver must do, as tests. A driver's own test file gives it a place that it can put blobs in. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { test } from 'node:test'
import type { Backend, ReadOptions } from './backend.ts'

/** A backend under test and the place behind it. */
export interface Subject extends AsyncDisposable {
  readonly backend: Backend
  /** Puts a blob there; gives its id. */
  put(bytes: Uint8Array): Promise<string>
}

/** Bytes that differ at every place that a wrong offset could hit. */
export function pattern(length: number, seed = 1): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  let state = seed >>> 0 || 1
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes[at] = state >>> 24
  }
  return bytes
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** A signal that ends a test that hangs. */
export function patience(ms = 20_000): ReadOptions {
  return { signal: AbortSignal.timeout(ms) }
}

const SIZE = 3_000_001
const UNKNOWN = '5'.repeat(64)

/** Registers the suite; `make` gives a fresh subject for each test, `size` is that of its blobs, about 3 MB. */
export function backendConformance(name: string, make: () => Promise<Subject>, size = SIZE): void {
  const content = pattern(size)
  const check = (title: string, run: () => Promise<void>): void => {
    // The runner awaits it.
    void test(`${name}: ${title}`, run)
  }

  check('gives exactly the bytes asked for, wherever they lie', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    assert.equal(await reader.size(patience().signal), size)
    for (const [offset, length] of [
      [0, size],
      [0, 1],
      [size - 1, 1],
      [1_048_575, 2],
      [1_000_000, 1_500_000],
      [size, 0],
    ] as const) {
      const into = Buffer.alloc(length, 0xee)
      await reader.read(offset, into, patience())
      assert.ok(into.equals(content.subarray(offset, offset + length)), `${length} bytes at ${offset}`)
    }
  })

  check('writes nothing outside of the view that it was given', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    const around = Buffer.alloc(300, 0xee)
    await reader.read(500, around.subarray(100, 200), patience())
    assert.ok(around.subarray(0, 100).every((byte) => byte === 0xee))
    assert.ok(around.subarray(100, 200).equals(content.subarray(500, 600)))
    assert.ok(around.subarray(200).every((byte) => byte === 0xee))
  })

  check('many reads at once do not mix', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    const jobs = Array.from({ length: 40 }, async (_, index) => {
      const offset = index * 70_001
      const into = Buffer.alloc(60_000 + index)
      await reader.read(offset, into, patience())
      assert.ok(into.equals(content.subarray(offset, offset + into.length)), `read ${index}`)
    })
    await Promise.all(jobs)
  })

  check('tells how far a read is, growing up to its length', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    const told: number[] = []
    const into = Buffer.alloc(2_500_000)
    const onFilled = (filled: number): void => {
      assert.ok(into.subarray(0, filled).equals(content.subarray(1000, 1000 + filled)), `first ${filled} bytes`)
      told.push(filled)
    }
    await reader.read(1000, into, { ...patience(), onFilled })
    assert.equal(told.at(-1), into.length)
    assert.ok(told.every((filled, index) => filled > (told[index - 1] ?? 0)))
  })

  check('a read beyond the end is TRUNCATED', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    await assert.rejects(reader.read(size - 10, Buffer.alloc(11), patience()), { code: 'TRUNCATED' })
    await assert.rejects(reader.read(size + 10_000, Buffer.alloc(1), patience()), { code: 'TRUNCATED' })
  })

  check('an offset that is in no blob is refused', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    for (const offset of [-1, 0.5, Number.NaN, 2 ** 53, Number.MAX_SAFE_INTEGER])
      await assert.rejects(reader.read(offset, Buffer.alloc(8), patience()), { code: 'BAD_OPTION' })
  })

  check('a blob that is not there is NOT_FOUND and named', async () => {
    await using subject = await make()
    await subject.put(content)
    const attempt = async (): Promise<void> => {
      const reader = await subject.backend.open(UNKNOWN)
      await reader.read(0, Buffer.alloc(10), patience())
    }
    await assert.rejects(attempt(), { code: 'NOT_FOUND', message: new RegExp(UNKNOWN), retryable: false })
  })

  check('a blob id that would lead elsewhere is refused', async () => {
    await using subject = await make()
    for (const id of ['', '.', '..', '../x', 'a/b', '/etc/passwd', 'a\0b', 'x'.repeat(5000)])
      await assert.rejects(subject.backend.open(id), { code: 'BAD_OPTION' }, id.slice(0, 20))
  })

  check('a reader that no longer waits gets ABORTED, a late one TIMEOUT', async () => {
    await using subject = await make()
    const reader = await subject.backend.open(await subject.put(content))
    await assert.rejects(reader.read(0, Buffer.alloc(8), { signal: AbortSignal.abort() }), { code: 'ABORTED' })
    await assert.rejects(reader.size(AbortSignal.abort()), { code: 'ABORTED' })
    const midWay = new AbortController()
    const onFilled = (): void => midWay.abort()
    const into = Buffer.alloc(size)
    await assert.rejects(reader.read(0, into, { signal: midWay.signal, onFilled }), { code: 'ABORTED' })
    const late = AbortSignal.abort(new DOMException('late', 'TimeoutError'))
    await assert.rejects(reader.read(0, into, { signal: late }), { code: 'TIMEOUT' })
    await reader.read(0, into, patience())
    assert.ok(into.equals(content))
  })

  check('after close there is nothing but CLOSED, and no descriptor is left', async () => {
    await using subject = await make()
    const id = await subject.put(content)
    await (await subject.backend.open(id)).read(0, Buffer.alloc(10), patience())
    const reader = await subject.backend.open(id)
    const running = reader.read(0, Buffer.alloc(size), patience()).catch((error: unknown) => error)
    await reader.close()
    await reader.close()
    const ended: unknown = await running
    if (ended !== undefined) assert.equal((ended as { code?: string }).code, 'CLOSED')
    await assert.rejects(reader.read(0, Buffer.alloc(10), patience()), { code: 'CLOSED' })
    const other = await subject.backend.open(id)
    await subject.backend.close()
    await subject.backend.close()
    await assert.rejects(other.read(0, Buffer.alloc(10), patience()), { code: 'CLOSED' })
    await assert.rejects(subject.backend.open(id), { code: 'CLOSED' })
  })

  check('closing the backend gives back all descriptors', async () => {
    const before = (await readdir('/proc/self/fd')).length
    for (let round = 0; round < 5; round += 1) {
      await using subject = await make()
      const id = await subject.put(content)
      const readers = await Promise.all(Array.from({ length: 8 }, () => subject.backend.open(id)))
      await Promise.all(readers.map((reader) => reader.read(5, Buffer.alloc(100), patience())))
    }
    // The event loop and the resolver may have opened a few of their own.
    assert.ok((await readdir('/proc/self/fd')).length <= before + 6)
  })
}
