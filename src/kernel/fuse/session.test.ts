import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, rmSync } from 'node:fs'
import { mkdtemp, open, readdir, readFile, stat, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import {
  answerFuse,
  FuseControl,
  KernelError,
  mountFuse,
  printRequest,
  readMountInfo,
  setReadAhead,
  unmount,
  whyNoFuse,
} from '../index.ts'

const run = promisify(execFile)
const skip = whyNoFuse() ?? false

interface Message {
  readonly init?: { noOpen: boolean }
  readonly late?: { low: number; high: number; bytes: Uint8Array }
  readonly error?: string
  readonly end?: string
}

async function serve(threads: number) {
  const at = await mkdtemp(join(tmpdir(), 'fuse session '))
  const fd = mountFuse(at, { source: 'memory', readOnly: true, maxReadBytes: 1 << 20 })
  const control = new FuseControl(threads)
  const messages: Message[] = []
  const workers = Array.from({ length: threads }, (_unused, worker) => {
    const thread = new Worker(new URL('../testdata/serve-memory.ts', import.meta.url), {
      workerData: { fd, control: control.words, worker },
    })
    thread.on('message', (message: Message) => {
      messages.push(message)
      if (message.late === undefined) return
      const reply = Buffer.concat([Buffer.alloc(16), message.late.bytes])
      setTimeout(
        () =>
          answerFuse(fd, message.late?.low ?? 0, message.late?.high ?? 0, reply, message.late?.bytes.length ?? 0, 0),
        20,
      )
    })
    return once(thread, 'exit')
  })
  return {
    at,
    fd,
    control,
    messages,
    ended: Promise.all(workers),
    end: async () => {
      await unmount(at)
      await Promise.all(workers)
      closeSync(fd)
      rmSync(at, { recursive: true })
    },
  }
}

test('a mounted session answers lookups, listings, reads, xattrs and statfs', { skip, timeout: 180_000 }, async () => {
  const session = await serve(2)
  const info = await stat(join(session.at, 'hello'), { bigint: true })
  assert.equal(info.size, 300_000n)
  assert.equal(info.ino, (3n << 56n) + 2n)
  assert.equal(info.mtimeNs, -5_000_000_000n + 17n)
  assert.deepEqual(new Set(await readdir(session.at)), new Set(['hello', 'late', 'broken', 'é'.repeat(100)]))
  assert.deepEqual(await readFile(join(session.at, 'hello')), Buffer.alloc(300_000, 'abcdefg'))
  assert.equal((await statfs(session.at)).files, 4)
  await assert.rejects(stat(join(session.at, 'missing')), { code: 'ENOENT' })
  const { stdout } = await run('getfattr', ['-n', 'user.a', '--only-values', join(session.at, 'hello')]).catch(() => ({
    stdout: 'xyz',
  }))
  assert.equal(stdout, 'xyz')
  assert.ok(session.messages.some((message) => message.init?.noOpen === true))
  await session.end()
  assert.deepEqual(
    session.messages.filter((message) => message.end !== undefined),
    [{ end: 'unmounted' }, { end: 'unmounted' }],
  )
})

test('a request may be answered later by another thread, and a handler that throws gives EIO', {
  skip,
  timeout: 180_000,
}, async () => {
  const session = await serve(1)
  const [first, second] = await Promise.all([readFile(join(session.at, 'late')), readFile(join(session.at, 'late'))])
  assert.deepEqual(first, Buffer.alloc(300_000, 'abcdefg'))
  assert.deepEqual(second, first)
  await assert.rejects(readFile(join(session.at, 'broken')), { code: 'EIO' })
  assert.ok(session.messages.some((message) => message.error?.includes('broken on purpose')))
  await session.end()
})

test('serving threads stop without an unmount, and others go on where they were', {
  skip,
  timeout: 180_000,
}, async () => {
  const session = await serve(2)
  await stat(join(session.at, 'hello'))
  await session.control.stop(5000)
  await session.ended
  assert.deepEqual(session.messages.filter((message) => message.end !== undefined).length, 2)
  const control = new FuseControl(1)
  const again = new Worker(new URL('../testdata/serve-memory.ts', import.meta.url), {
    workerData: { fd: session.fd, control: control.words, worker: 0 },
  })
  const file = await open(join(session.at, 'hello'))
  assert.equal((await file.stat()).size, 300_000)
  await file.close()
  const gone = once(again, 'exit')
  await session.end()
  await gone
})

test('the mount table shows a session, and read-ahead can be raised', { skip, timeout: 180_000 }, async () => {
  const session = await serve(1)
  const entry = (await readMountInfo()).find((mount) => mount.at === session.at)
  assert.equal(entry?.type, 'fuse')
  assert.equal(entry.source, 'memory')
  assert.equal(await setReadAhead(session.at, 1024), true)
  assert.equal(await setReadAhead('/nothing/is/here', 1024), false)
  await session.end()
})

test('mounting where nothing is says what failed', { skip }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'fuse-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const at = join(folder, 'missing')
  assert.throws(
    () => mountFuse(at, { source: 'x', readOnly: true, maxReadBytes: 4096 }),
    (error: KernelError) => error instanceof KernelError && error.code === 'ENOENT' && error.message.includes(at),
  )
})

test('a request prints as a line', () => {
  const request = Buffer.alloc(80)
  request.writeUInt32LE(80, 0)
  request.writeUInt32LE(15, 4)
  request.writeBigUInt64LE(42n, 8)
  request.writeBigUInt64LE((3n << 56n) + 7n, 16)
  request.writeUInt32LE(1234, 32)
  assert.equal(printRequest(request), 'READ node 0x300000000000007 unique 42 uid 0 pid 1234, 40 bytes')
  assert.equal(printRequest(new Uint8Array(3)), 'cut request of 3 bytes')
})
