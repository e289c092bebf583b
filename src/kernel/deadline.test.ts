import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Deadline, deadlineSignal } from './deadline.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Used as requests are: another signal is made of it, and somebody listens to that for a while. */
function used(signal: AbortSignal, others: readonly AbortSignal[]): WeakRef<AbortSignal> {
  const either = AbortSignal.any([signal, ...others])
  const onAbort = (): void => undefined
  either.addEventListener('abort', onAbort)
  either.removeEventListener('abort', onAbort)
  return new WeakRef(either)
}

test('nothing is left of requests that ended long before their deadline', async () => {
  const closing = new AbortController()
  const [disposed, waiting]: [WeakRef<AbortSignal>[], WeakRef<AbortSignal>[]] = [[], []]
  for (let count = 0; count < 1000; count += 1) {
    using deadline = new Deadline(3_600_000, closing.signal)
    disposed.push(new WeakRef(deadline.signal), used(deadline.signal, [closing.signal]))
    waiting.push(used(deadlineSignal(3_600_000), [closing.signal]))
  }
  // A weak reference holds what it refers to until the turn is over.
  for (let turn = 0; turn < 10; turn += 1) {
    await sleep(1)
    collect()
  }
  const alive = (list: ReadonlyArray<WeakRef<AbortSignal>>): number => list.filter((ref) => ref.deref()).length
  const left = [alive(disposed), alive(waiting)] as const
  // The stack may still name the last of them.
  assert.ok(left[0] <= 10 && left[1] <= 10, `of 2000 and 1000 are left: ${left.join(', ')}`)
})

test('a deadline aborts as that of AbortSignal.timeout does, also with other signals; not when it was disposed of', async () => {
  const other = new AbortController()
  const [long, short] = [new Deadline(3_600_000, other.signal), new Deadline(1, other.signal)]
  const disposed = new Deadline(1)
  disposed[Symbol.dispose]()
  await new Promise((resolve) => short.signal.addEventListener('abort', resolve, { once: true }))
  await sleep(5)
  const reason = short.signal.reason as DOMException
  assert.deepEqual([reason.name, reason.message], ['TimeoutError', 'The operation was aborted due to timeout'])
  assert.deepEqual([disposed.signal.aborted, long.signal.aborted], [false, false])
  other.abort(new Error('closed'))
  assert.equal((long.signal.reason as Error).message, 'closed')
  assert.equal(deadlineSignal(2 ** 40).aborted, false)
  assert.equal(new Deadline(1, AbortSignal.abort('gone')).signal.reason, 'gone')
})

test('deadlines of the product are these', () => {
  const src = join(import.meta.dirname, '..')
  const others = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(
    (path) =>
      path.endsWith('.ts') &&
      !/\.test\.ts$|(?:^|\/)(?:testing|conformance)\.ts$/.test(path) &&
      /AbortSignal\.timeout\(/.test(readFileSync(join(src, path), 'utf8')),
  )
  assert.deepEqual(others, [])
})
