import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, linkSync, lstatSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import {
  ContainerdClient,
  ContainerdError,
  type Handlers,
  type RawService,
  type RunningServer,
  serve,
  service,
  Snapshots,
  Version,
} from './index.ts'

const OWNER = { mode: 0o600, uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 }
const VERSION: Handlers<typeof Version> = {
  version: async (_request, { namespace }) => ({ version: '1.2.3', revision: namespace }),
}

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), 'containerd-'))
  t.after(() => rmSync(made, { recursive: true, force: true }))
  return made
}

function clientOf(t: TestContext, path: string): ContainerdClient {
  const client = new ContainerdClient(path, { namespace: 'k8s.io', timeoutMs: 30_000 })
  t.after(() => client.close())
  return client
}

async function startVersion(t: TestContext, path: string): Promise<RunningServer> {
  const server = await serve({ path, ...OWNER, services: [service(Version, VERSION)], raw: [] })
  t.after(() => server.stop(0))
  return server
}

/** A snapshots service that does only what a test gives. */
async function startSnapshots(
  t: TestContext,
  handlers: Partial<Handlers<typeof Snapshots>>,
): Promise<ContainerdClient> {
  const path = join(folder(t), 's.sock')
  const services = [service(Snapshots, handlers as Handlers<typeof Snapshots>)]
  const server = await serve({ path, ...OWNER, services, raw: [] })
  t.after(() => server.stop(0))
  return clientOf(t, path)
}

test('a call brings its message and its namespace, and what is not served is UNIMPLEMENTED', async (t) => {
  const path = join(folder(t), 'deeper', 's.sock')
  await startVersion(t, path)
  const client = clientOf(t, path)
  const answer = await client.service(Version).version({})
  assert.deepEqual([answer.version, answer.revision], ['1.2.3', 'k8s.io'])
  await assert.rejects(client.service(Snapshots).stat({ key: 'a' }), { name: 'ContainerdError', code: 'UNIMPLEMENTED' })
  assert.equal(lstatSync(path).mode & 0o777, 0o600)
  assert.equal(lstatSync(join(path, '..')).mode & 0o777, 0o700)
})

test('a call that was answered is not given up afterwards', async (t) => {
  const signals: AbortSignal[] = []
  const client = await startSnapshots(t, {
    stat: async (_request, { signal }) => {
      signals.push(signal)
      return {}
    },
  })
  // The stream of the first one is closed by the time that the second one is answered.
  for (let i = 0; i < 3; i += 1) await client.service(Snapshots).stat({ key: 'a' })
  assert.equal(signals[0]?.aborted, false)
})

test('what a handler throws is the status of the call: its code, or UNKNOWN', async (t) => {
  const client = await startSnapshots(t, {
    stat: async ({ key }) => {
      if (key === 'coded') throw new ContainerdError('FAILED_PRECONDITION', 'has 50 % of „children“')
      throw new Error('x'.repeat(100_000))
    },
    async *list({ filters }) {
      if (filters.length > 0) throw new ContainerdError('INVALID_ARGUMENT', `${filters[0]}${'😀'.repeat(10_000)}`)
      yield { info: [{ name: 'first' }] }
      throw new ContainerdError('NOT_FOUND', 'no second')
    },
  })
  const snapshots = client.service(Snapshots)
  await assert.rejects(snapshots.stat({ key: 'coded' }), {
    code: 'FAILED_PRECONDITION',
    message: 'has 50 % of „children“',
  })
  await assert.rejects(snapshots.stat({ key: 'other' }), { code: 'UNKNOWN', message: /^x{8192}…$/ })
  const names: string[] = []
  await assert.rejects(
    async () => {
      for await (const { info } of snapshots.list({})) names.push(...info.map(({ name }) => name))
    },
    { code: 'NOT_FOUND', message: 'no second' },
  )
  assert.deepEqual(names, ['first'])
  // Cut amid a character.
  await assert.rejects(
    async () => {
      for await (const _none of snapshots.list({ filters: ['x'] })) assert.fail()
    },
    { code: 'INVALID_ARGUMENT', message: `x${'😀'.repeat(4095)}\ufffd…` },
  )
})

test('streams and messages of many megabytes arrive whole', async (t) => {
  const value = 'v'.repeat(5 << 20)
  const client = await startSnapshots(t, {
    async *list() {
      for (let i = 0; i < 1000; i++) yield { info: [{ name: `${i}`, labels: { a: 'x'.repeat(1000) } }] }
      yield { info: [{ name: 'long', labels: { value } }] }
    },
    stat: async ({ key }) => ({ info: { name: key } }),
  })
  const snapshots = client.service(Snapshots)
  const seen: string[] = []
  let last = ''
  for await (const { info } of snapshots.list({}))
    for (const { name, labels } of info) {
      seen.push(name)
      last = labels.value ?? ''
    }
  assert.equal(seen.length, 1001)
  assert.equal(last, value)
  assert.equal((await snapshots.stat({ key: value })).info?.name, value)
  await assert.rejects(snapshots.stat({ key: 'k'.repeat(17 << 20) }), { code: 'RESOURCE_EXHAUSTED' })
})

test('a caller that gives up, or whose deadline passes, aborts the call', async (t) => {
  const ends: string[] = []
  const started = { late: Promise.withResolvers<void>(), 'given up': Promise.withResolvers<void>() }
  const aborted: Array<Promise<void>> = []
  const client = await startSnapshots(t, {
    prepare: async ({ key }, { signal }) => {
      const ended = once(signal, 'abort').then(() => void ends.push(key))
      aborted.push(ended)
      started[key === 'late' ? 'late' : 'given up'].resolve()
      await ended
      throw new ContainerdError('CANCELLED', 'given up')
    },
    async *list(_request, { signal }) {
      aborted.push(once(signal, 'abort').then(() => void ends.push('list')))
      for (let i = 0; ; i++) yield { info: [{ name: `${i}` }] }
    },
  })
  const snapshots = client.service(Snapshots)
  await assert.rejects(snapshots.stat({ key: 'any' }), { code: 'UNIMPLEMENTED' }) // connected: the deadlines below are for calls alone
  await assert.rejects(snapshots.prepare({ key: 'late' }, { timeoutMs: 2_000 }), { code: 'DEADLINE_EXCEEDED' })
  const giving = new AbortController()
  await started.late.promise
  const call = snapshots.prepare({ key: 'given up' }, { signal: giving.signal })
  void started['given up'].promise.then(() => giving.abort())
  await assert.rejects(call, { code: 'CANCELLED' })
  await assert.rejects(snapshots.prepare({ key: 'never' }, { signal: giving.signal }), { code: 'CANCELLED' })
  for await (const { info } of snapshots.list({})) if (info[0]?.name === '3') break
  // The calls may end here before they have there.
  while (aborted.length < 2) await new Promise((resolve) => setTimeout(resolve, 10))
  await Promise.all(aborted)
  assert.ok(ends.includes('late') && ends.includes('list') && !ends.includes('never'), ends.join())
})

test('a server stops while clients keep their connections: calls under way may end, and then are aborted', async (t) => {
  const path = join(folder(t), 's.sock')
  const begun = Promise.withResolvers<void>()
  const finish = Promise.withResolvers<void>()
  const handlers = {
    stat: async () => {
      begun.resolve()
      await finish.promise
      return { info: { name: 'ended' } }
    },
    usage: async (_request: object, { signal }: { signal: AbortSignal }) => {
      if (!signal.aborted) await once(signal, 'abort')
      throw new ContainerdError('UNAVAILABLE', 'stopping')
    },
  }
  const server = await serve({ path, ...OWNER, services: [service(Snapshots, handlers as never)], raw: [] })
  const snapshots = clientOf(t, path).service(Snapshots)
  const call = snapshots.stat({ key: 'a' })
  const endless = snapshots.usage({ key: 'b' })
  const refused = assert.rejects(endless, { code: 'UNAVAILABLE' })
  await begun.promise
  const stopped = server.stop(500)
  assert.equal(existsSync(path), false, 'the socket goes first')
  finish.resolve()
  assert.equal((await call).info?.name, 'ended')
  await refused
  await stopped
  await assert.rejects(snapshots.stat({ key: 'a' }), { code: 'UNAVAILABLE' })
})

test('a dead socket is replaced, a living one and a file are not', async (t) => {
  const path = join(folder(t), 's.sock')
  const first = await startVersion(t, path)
  await assert.rejects(startVersion(t, path), { code: 'UNAVAILABLE', message: /another process answers there/ })
  assert.equal((await clientOf(t, path).service(Version).version({})).version, '1.2.3')
  await first.stop(0)
  // What a killed process leaves: a socket that nobody listens on.
  const dead = createServer().listen(`${path}.d`)
  await once(dead, 'listening')
  linkSync(`${path}.d`, path)
  dead.close()
  await once(dead, 'close')
  assert.ok(lstatSync(path).isSocket())
  const second = await startVersion(t, path)
  assert.equal((await clientOf(t, path).service(Version).version({})).version, '1.2.3')
  await second.stop(0)
  writeFileSync(path, 'precious')
  await assert.rejects(startVersion(t, path), { code: 'UNAVAILABLE', message: /is no socket/ })
  assert.deepEqual(readdirSync(join(path, '..')), ['s.sock'])
})

test('a path that cannot be one of a socket is refused with its length', async (t) => {
  await assert.rejects(startVersion(t, join(folder(t), 'x'.repeat(100))), {
    code: 'INVALID_ARGUMENT',
    message: /at most 107 bytes/,
  })
  await assert.rejects(startVersion(t, 'relative.sock'), { code: 'INVALID_ARGUMENT', message: /absolute/ })
})

test("a socket that is to be of somebody else is root's to make, and is told as such", async (t) => {
  const place = folder(t)
  const other = { mode: 0o600, uid: 1, gid: 1 }
  const path = join(place, 's.sock')
  const isRoot = process.geteuid?.() === 0
  if (isRoot) {
    chmodSync(place, 0o777)
    process.seteuid?.(65_534)
  }
  try {
    await assert.rejects(serve({ path, ...other, services: [], raw: [] }), {
      code: 'UNAVAILABLE',
      message: `cannot listen on ${path}: only root may give a socket to user 1, group 1; run this as root`,
    })
  } finally {
    if (isRoot) process.seteuid?.(0)
  }
  assert.deepEqual(readdirSync(place), [])
})

test('a server that stops leaves the socket of its successor', async (t) => {
  const path = join(folder(t), 's.sock')
  const first = await startVersion(t, path)
  rmSync(path)
  await startVersion(t, path)
  await first.stop(0)
  assert.equal((await clientOf(t, path).service(Version).version({})).version, '1.2.3')
})

test('a client finds a server that came later, or came again', async (t) => {
  const path = join(folder(t), 's.sock')
  const version = clientOf(t, path).service(Version)
  await assert.rejects(version.version({}), { code: 'UNAVAILABLE' })
  const answered = async (): Promise<string> => {
    for (;;)
      try {
        return (await version.version({})).version
      } catch (error) {
        if ((error as ContainerdError).code !== 'UNAVAILABLE') throw error
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
  }
  const first = await startVersion(t, path)
  assert.equal(await answered(), '1.2.3')
  await first.stop(0)
  await startVersion(t, path)
  assert.equal(await answered(), '1.2.3')
})

test('a raw service gets every call under its name as bytes, known methods or not', async (t) => {
  const path = join(folder(t), 's.sock')
  const seen: Array<[string, string]> = []
  const raw: RawService = {
    name: 'containerd.services.snapshots.v1.Snapshots',
    handle: (call, method) => {
      call.on('data', (bytes: Buffer) => {
        seen.push([method.split('/')[2] ?? '', bytes.toString('latin1')])
        call.write(Buffer.from('0a030a0178', 'hex')) // {1: {1: "x"}}
        call.end()
      })
    },
  }
  const server = await serve({ path, ...OWNER, services: [service(Version, VERSION)], raw: [raw] })
  t.after(() => server.stop(0))
  const client = clientOf(t, path)
  assert.equal((await client.service(Snapshots).stat({ key: 'k' })).info?.name, 'x')
  for await (const { info } of client.service(Snapshots).list({ filters: ['f'] })) assert.equal(info[0]?.name, 'x')
  assert.deepEqual(seen, [
    ['Stat', '\x12\x01k'],
    ['List', '\x12\x01f'],
  ])
  assert.equal((await client.service(Version).version({})).version, '1.2.3')
})

test('calls that come while the server starts wait for it', async (t) => {
  const path = join(folder(t), 'late.sock')
  const ready = Promise.withResolvers<void>()
  let calls = 0
  const late = service(Version, {
    version: async () => {
      calls++
      return await Promise.resolve({ version: 'v1', revision: '' })
    },
  })
  const server = await serve({ ...OWNER, path, services: [late], raw: [], ready: ready.promise })
  t.after(async () => await server.stop(100))
  const client = clientOf(t, path)
  const answer = client.service(Version).version({})
  const given = new AbortController()
  const gone = client.service(Version).version({}, { signal: given.signal })
  given.abort()
  await assert.rejects(gone, { code: 'CANCELLED' })
  assert.equal(calls, 0)
  ready.resolve()
  assert.equal((await answer).version, 'v1')
})
