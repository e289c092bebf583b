import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { connectUnix, KernelError, receiveDescriptors, sendDescriptor } from './index.ts'

/** A listening socket whose connections Node accepts and does not read. */
async function listening(t: TestContext): Promise<{ path: string; folder: string; accepted: Promise<number> }> {
  const folder = mkdtempSync(join(tmpdir(), 'descriptors '))
  const path = join(folder, 'socket')
  const accepted = Promise.withResolvers<number>()
  const sockets: Socket[] = []
  const server: Server = createServer({ pauseOnConnect: true }, (socket) => {
    sockets.push(socket)
    accepted.resolve((socket as unknown as { _handle: { fd: number } })._handle.fd)
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
    rmSync(folder, { recursive: true })
  })
  return { path, folder, accepted: accepted.promise }
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}

test('a descriptor goes with its bytes, also with more than a socket holds, and is the same file at the other end', async (t) => {
  const { path, folder, accepted } = await listening(t)
  const file = join(folder, 'file')
  writeFileSync(file, 'hello')
  const fd = openSync(file, 'r')
  const socket = await connectUnix(path, 60_000)
  const state = Buffer.alloc(3 << 20, 'state ')
  const received = accepted.then((end) => receiveDescriptors(end, 4 << 20, 5000))
  await sendDescriptor(socket, fd, state, 5000)
  closeSync(socket)
  closeSync(fd)
  const { data, descriptors } = await received
  assert.ok(data.equals(state))
  assert.equal(descriptors.length, 1)
  assert.equal(readFileSync(descriptors[0] ?? -1, 'utf8'), 'hello')
  closeSync(descriptors[0] ?? -1)
})

test('waits end: for one who never reads, never sends, sends too much, or is not there', async (t) => {
  const { path, folder, accepted } = await listening(t)
  const before = openDescriptors()
  const isLate = (error: unknown): boolean => error instanceof KernelError && error.code === 'ETIMEDOUT'
  const socket = await connectUnix(path, 60_000)
  await assert.rejects(receiveDescriptors(socket, 10, 30), isLate)
  await assert.rejects(sendDescriptor(socket, 0, Buffer.alloc(8 << 20), 30), isLate)
  await assert.rejects(receiveDescriptors(await accepted, 1000, 60_000), { code: 'E2BIG' })
  closeSync(socket)
  await assert.rejects(connectUnix(join(folder, 'nobody'), 1000), { code: 'ENOENT', call: 'connect' })
  await assert.rejects(connectUnix(`/${'x'.repeat(200)}`, 1000), KernelError)
  assert.equal(openDescriptors(), before + 1) // the accepted end
})
