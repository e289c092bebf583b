import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { MountQuestion } from './mount-question.ts'
import { excuseFor, type ProcessSigns, signsOf } from './process-signs.ts'
import { type Asked, Silence } from './silence.ts'
import { questionMs } from './watchdog.ts'

function signs(of: Partial<Omit<ProcessSigns, 'states'>> & { readonly states?: string } = {}): ProcessSigns {
  return { usedMs: 0, queuedMs: new Map(), pagedIn: 0, ...of, states: new Set(of.states ?? 'S') }
}

for (const { what, before = signs(), after, wanted } of [
  { what: 'sleeps all the time', after: signs(), wanted: undefined },
  { what: 'is stopped', after: signs({ states: 'T' }), wanted: undefined },
  { what: 'had a processor all the time', after: signs({ usedMs: 10_000, states: 'R' }), wanted: undefined },
  {
    what: 'runs now, and had next to no processor',
    after: signs({ usedMs: 300, states: 'SR' }),
    wanted: 'it waits for a processor',
  },
  {
    what: 'has a thread that waited for a processor',
    before: signs({ queuedMs: new Map([['1', 50]]) }),
    after: signs({ queuedMs: new Map([['1', 3000]]) }),
    wanted: 'it waits for a processor',
  },
  {
    what: 'has threads that waited long before',
    before: signs({ queuedMs: new Map([['1', 90_000]]) }),
    after: signs({
      queuedMs: new Map([
        ['1', 90_100],
        ['2', 90_000],
      ]),
    }),
    wanted: undefined,
  },
  { what: 'waits for a disk', after: signs({ states: 'SD' }), wanted: 'it waits for a disk' },
  { what: 'was swapped out', after: signs({ pagedIn: 1 }), wanted: 'its memory is fetched from a disk' },
  { what: 'is debugged', after: signs({ states: 't' }), wanted: 'a debugger holds it' },
])
  test(`a process that ${what} ${wanted === undefined ? 'has no excuse' : 'is excused'}`, () => {
    assert.equal(excuseFor(before, after, 10_000), wanted)
  })

function running(program: string, ...args: readonly string[]): ChildProcess & Disposable {
  const child = spawn(program, args, { stdio: 'ignore' })
  return Object.assign(child, { [Symbol.dispose]: () => void child.kill('SIGKILL') })
}

async function seen(pid: number, state: string): Promise<ProcessSigns> {
  for (;;) {
    const found = signsOf(pid)
    if (found?.states.has(state) === true) return found
    await sleep(5)
  }
}

test('signs are those that the kernel gives, with any name; of a process that is gone there are none', {
  timeout: 180_000,
}, async () => {
  using stopped = running('sh', '-c', 'kill -STOP $$')
  using busy = running('sh', '-c', 'while :; do :; done')
  const found = await seen(stopped.pid ?? 0, 'T')
  assert.equal(found.states.size, 1)
  const before = await seen(busy.pid ?? 0, 'R')
  let after = before
  while (after.usedMs === before.usedMs) {
    await sleep(5)
    after = signsOf(busy.pid ?? 0) ?? after
  }
  assert.ok(after.usedMs > before.usedMs)
  assert.equal(signsOf(2 ** 22 + 1), undefined)
  assert.equal(signsOf(process.pid)?.states.has('S'), true) // one of our threads sleeps
})

const asked = (of: Partial<Asked> = {}): Asked => ({
  api: 'silent',
  mount: 'silent',
  elapsedMs: 10_000,
  excuse: undefined,
  ...of,
})

test('only time without an excuse counts; a mount alone has twice the time', () => {
  const silence = new Silence(60_000)
  for (let i = 0; i < 5; i++) silence.add(asked())
  silence.add(asked({ excuse: 'it waits for a processor' }))
  assert.equal(silence.verdict, 'none')
  assert.equal(silence.isLong, true)
  assert.equal(silence.text, 'its API and its mount do not answer for 60 s; it waits for a processor')
  silence.add(asked())
  assert.equal(silence.verdict, 'both')
  silence.add(asked({ mount: 'answered' }))
  assert.equal(silence.verdict, 'api')
  for (let i = 0; i < 5; i++) silence.add(asked())
  assert.equal(silence.verdict, 'api') // a mount that fell silent a while ago has its time too
  silence.add(asked())
  assert.equal(silence.verdict, 'both')
  const slow = new Silence(60_000)
  for (let i = 0; i < 11; i++) slow.add(asked({ api: 'answered' }))
  assert.equal(slow.verdict, 'none')
  slow.add(asked({ api: 'unknown' }))
  assert.equal(slow.verdict, 'mount')
  assert.equal(slow.text, 'its mount does not answer for 120 s')
})

test('one answer of the API that does not come takes no patience from a mount that was silent alone', () => {
  const silence = new Silence(60_000)
  for (let i = 0; i < 7; i++) silence.add(asked({ api: 'answered' }))
  silence.add(asked())
  assert.equal(silence.verdict, 'none') // 70 s of 120, and 10 of 60
  silence.add(asked({ api: 'answered' }))
  silence.add(asked({ api: 'answered' }))
  assert.equal(silence.verdict, 'none')
  silence.add(asked())
  assert.equal(silence.verdict, 'mount')
})

test('questions have whole milliseconds, and less time than a call may take', () => {
  assert.deepEqual(
    [60_000, 5_000, 61_000, 5_000.5, 600_000, 86_400_000].map(questionMs),
    [10_000, 834, 10_167, 834, 20_000, 20_000],
  )
})

test('a mount that refuses counts only when it answered before', async () => {
  const question = new MountQuestion('/nowhere', assert.ifError)
  assert.equal(await question.ask(30_000), 'unknown')
  const there = new MountQuestion('/', assert.ifError)
  assert.equal(await there.ask(30_000), 'answered')
  there.close()
})

test('without the program nobody knows, and that is told; who closes waits for no answer', async () => {
  const { PATH } = process.env
  const troubles: string[] = []
  process.env['PATH'] = '/nowhere'
  try {
    const question = new MountQuestion('/', ({ message }) => void troubles.push(message))
    assert.equal(await question.ask(30_000), 'unknown')
    assert.deepEqual(troubles, ['spawn stat ENOENT'])
  } finally {
    process.env['PATH'] = PATH
  }
  const closed = new MountQuestion('/', assert.ifError)
  const asked = closed.ask(2 ** 31 - 1)
  closed.close()
  assert.notEqual(await asked, 'silent')
})
