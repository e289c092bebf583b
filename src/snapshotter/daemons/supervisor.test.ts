import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { fetchSession } from './supervisor.ts'

test('a nydusd that dies while it sends its session is an error of that call, and ends nobody', {
  timeout: 60_000,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'supervisor-'))
  const failures: unknown[] = []
  const failed = (error: unknown): unknown => failures.push(error)
  process.on('unhandledRejection', failed)
  try {
    const path = join(folder, 's.sock')
    const connected = Promise.withResolvers<Socket>()
    const fetched = fetchSession(path, async () => {
      const socket = connect(path)
      await once(socket, 'connect')
      while (existsSync(path)) await sleep(5) // it was accepted, and is read from
      connected.resolve(socket)
      throw new Error('socket hang up')
    })
    const told = assert.rejects(fetched, /socket hang up/)
    const socket = await connected.promise
    await sleep(50) // the call has failed, the connection is there
    socket.destroy()
    await told
    assert.deepEqual(failures, [])
  } finally {
    process.off('unhandledRejection', failed)
    rmSync(folder, { recursive: true })
  }
})
