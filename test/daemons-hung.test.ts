/** Daemons that live and do nothing: noticed, and brought back as the policy says, while readers wait. */
import assert from 'node:assert/strict'
import { closeSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { differencesSeenApart } from '../src/daemon/testing.ts'
import { mountFuse, unmount } from '../src/kernel/index.ts'
import {
  Field,
  FILE,
  type FieldOptions,
  IMAGE,
  OTHER_IMAGE,
  OURS,
  PEER,
  skip,
  skipPeer,
  until,
} from './daemons/field.ts'

/** A daemon that hangs is brought back after some seconds. No multiple of the questions that are asked in it. */
const HANG = { hangTimeoutMs: 1_000 } as const
/** Where one of the two answers: each question has half a second, for the answer to come also on a busy machine. */
const HALF = { hangTimeoutMs: 3_000 } as const

function statusOf(field: Field) {
  const [status] = field.images?.list() ?? []
  assert.ok(status)
  return status
}

/** Another process serves. */
async function replaced(field: Field, before: number): Promise<void> {
  await until(`a daemon after ${before}\n${field.lines.join('\n')}`, () => {
    const { state, pid } = statusOf(field)
    return state === 'running' && pid !== before ? true : undefined
  })
}

function said(field: Field, pattern: RegExp): boolean {
  return field.lines.some((line) => pattern.test(line))
}

/** What is missing, with what was said instead. */
function verdict(field: Field): () => string {
  return () => `a verdict\n${field.lines.join('\n')}`
}

interface Hung {
  readonly field: Field
  readonly at: string
  readonly pid: number
  readonly events: string[]
}

async function mounted(options: FieldOptions, program?: string): Promise<Hung> {
  const field = new Field({ ...HANG, ...options })
  if (program !== undefined) field.program('nydusd', program)
  const events: string[] = []
  const images = await field.start()
  for (const name of ['HUNG', 'DIED'] as const) images.events.on(name, () => void events.push(name))
  const { mountpoint: at } = await field.ensure(field.layer(IMAGE))
  return { field, at, pid: statusOf(field).pid, events }
}

for (const { side, program, recover, mode, why } of [
  { side: 'ours', program: undefined, recover: 'failover', mode: 'shared', why: skip },
  { side: 'ours', program: undefined, recover: 'restart', mode: 'dedicated', why: skip },
  { side: 'the original', program: PEER, recover: 'failover', mode: 'shared', why: skipPeer },
] as const)
  test(`${recover}, ${mode}, ${side}: readers of a daemon that is stopped wait until another one is there, and read what they should`, {
    skip: why,
    timeout: 180_000,
  }, async () => {
    const { field, at, pid, events } = await mounted({ mode, recover }, program)
    await using _field = field
    const reader = field.reader(join(at, FILE))
    await reader.more(3)
    const mounts = field.mounts()
    process.kill(pid, 'SIGSTOP')
    await replaced(field, pid)
    await reader.more(3)
    assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
    assert.deepEqual(field.mounts(), mounts)
    assert.deepEqual(events, ['HUNG', 'DIED'])
    assert.ok(said(field, /hangs: its API and its mount do not answer for \d+ s; it is killed, and brought back/))
    assert.equal(statusOf(field).silence, '')
  })

test('none: a daemon that is stopped is told, and left alone; it goes on when somebody lets it', {
  skip,
  timeout: 180_000,
}, async () => {
  const { field, at, pid, events } = await mounted({ mode: 'shared', recover: 'none' })
  await using _field = field
  process.kill(pid, 'SIGSTOP')
  await until(
    'a line',
    () => said(field, /hangs: .*it is left alone \(recover_policy\); "kill -9 \d+" ends it/) || undefined,
  )
  assert.match(statusOf(field).silence, /^its API and its mount do not answer for \d+ s/)
  process.kill(pid, 'SIGCONT')
  await until('answers', () => said(field, /answers again/) || undefined)
  assert.deepEqual([statusOf(field).pid, statusOf(field).silence, events], [pid, '', ['HUNG']])
  assert.deepEqual(await differencesSeenApart(at, IMAGE.tree), [])
})

test('restart, the original: one that is silent while files can be read is left to its containers, and one that is silent altogether is not', {
  skip: skipPeer,
  timeout: 180_000,
}, async () => {
  const { field, at, pid } = await mounted({ ...HALF, mode: 'dedicated', recover: 'restart' }, PEER)
  await using _field = field
  const { apiSocket } = statusOf(field)
  rmSync(apiSocket)
  await until(
    'a line',
    () => said(field, /its API does not answer .*left alone, as its containers still read/) || undefined,
  )
  assert.equal(statusOf(field).pid, pid)
  assert.equal(readFileSync(join(at, FILE)).length, 65_536)
  process.kill(pid, 'SIGSTOP')
  await replaced(field, pid)
  assert.ok(said(field, /its API and its mount do not answer .*it is killed/))
})

test('an API that accepts and never answers is one that hangs', { skip, timeout: 180_000 }, async () => {
  const { field, at, pid } = await mounted({ ...HALF, mode: 'shared', recover: 'restart' })
  await using _field = field
  const { apiSocket } = statusOf(field)
  renameSync(apiSocket, `${apiSocket}.away`)
  const asked: Socket[] = []
  const dumb = createServer((socket) => void asked.push(socket))
  await new Promise<void>((resolve) => dumb.listen(apiSocket, resolve))
  const reader = field.slowReader(300, join(at, FILE)) // a busy daemon is excused where processors are rare
  await until(verdict(field), () => said(field, /hangs: its API does not answer for \d+ s; it is killed/) || undefined)
  dumb.close()
  for (const socket of asked) socket.destroy()
  await replaced(field, pid)
  await reader.more(3)
  assert.deepEqual(await reader.stop(), [], field.lines.join('\n'))
  assert.ok(asked.length >= 6)
})

test('a mount that answers nothing is noticed while the API answers, though later', {
  skip,
  timeout: 180_000,
}, async () => {
  const { field, pid } = await mounted({ ...HALF, mode: 'shared', recover: 'restart' })
  await using _field = field
  const { mountpoint } = statusOf(field)
  const device = mountFuse(mountpoint, { source: 'silent', readOnly: true, maxReadBytes: 131_072 })
  await until(
    verdict(field),
    () => said(field, /hangs: its mount does not answer for \d+ s; it is killed/) || undefined,
  )
  closeSync(device)
  await unmount(mountpoint, true)
  await replaced(field, pid)
})

test('an upgrade that takes long and fails is no fault of the daemon that goes on', {
  skip,
  timeout: 180_000,
}, async () => {
  const { field, pid, events } = await mounted({ mode: 'shared', recover: 'failover' })
  await using _field = field
  const [go, version] = [join(field.path, 'go'), `if [ "$1" = --version ]; then exec '${OURS}' "$@"; fi`]
  const slow = field.script('nydusd-slow', `${version}\nwhile [ ! -e '${go}' ]; do sleep 0.1; done; exit 3`)
  const upgraded = assert.rejects(async () => field.images?.upgrade({ nydusdPath: slow }), /the old one goes on/)
  await until('a successor that is silent for long', () => statusOf(field).silence || undefined)
  writeFileSync(go, '')
  await upgraded
  await field.ensure(field.layer(OTHER_IMAGE)) // in its turn, after all that was to be done
  assert.deepEqual([statusOf(field).pid, events], [pid, []], field.lines.join('\n'))
})

test('daemons that answer are left alone', { skip, timeout: 180_000 }, async () => {
  const { field, pid, events } = await mounted({ mode: 'dedicated', hangTimeoutMs: 5_000 })
  await using _field = field
  const reader = field.reader(join(statusOf(field).mountpoint, FILE))
  await reader.more(20)
  assert.deepEqual(await reader.stop(), [])
  assert.deepEqual([events, statusOf(field).pid], [[], pid])
  assert.ok(!said(field, /is not looked after/), field.lines.join('\n'))
})
