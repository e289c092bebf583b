/**
 * The supervisor's socket of a nydusd, upstream's protocol: we listen, nydusd connects. One connection for one direction: state and descriptor of its session
 * come from it, or go to it, and the end of the stream is the end of the state.
 */
import { closeSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { receiveDescriptors, sendDescriptor } from '../../kernel/index.ts'
import { SnapshotterError } from '../errors.ts'

const DEADLINE_MS = 10_000
/** More than 255 mounts with the largest configurations. */
const MAX_STATE_BYTES = 320 << 20

/** A session that nobody serves can go on with this. The descriptor belongs to whoever has it. */
export interface Session {
  readonly state: Buffer
  readonly device: number
}

/** Listens while `ask` makes the daemon send what it has. Throws SnapshotterError, or what `ask` throws. */
export async function fetchSession(path: string, ask: () => Promise<void>): Promise<Session> {
  let received: readonly number[] = []
  try {
    const data = await once(path, ask, async (socket) => {
      const got = await receiveDescriptors(socket, MAX_STATE_BYTES, DEADLINE_MS)
      received = got.descriptors
      return got.data
    })
    const [device, ...others] = received
    if (device === undefined || data.length === 0)
      throw new SnapshotterError('UNAVAILABLE', `nydusd sent no session to ${path}`)
    received = others
    return { state: data, device }
  } finally {
    // also when it died in the middle, and the state is not whole: the answer to what it was asked tells
    for (const fd of received) closeSync(fd)
  }
}

/** Listens while `ask` makes the daemon take the session, which stays ours too. Throws SnapshotterError, or what `ask` throws. */
export async function offerSession(path: string, { state, device }: Session, ask: () => Promise<void>): Promise<void> {
  await once(path, ask, (socket) => sendDescriptor(socket, device, state, DEADLINE_MS))
}

async function once<T>(path: string, ask: () => Promise<void>, act: (socket: number) => Promise<T>): Promise<T> {
  rmSync(path, { force: true })
  const connected = Promise.withResolvers<Socket>()
  // Node accepts it and must not read from it: it would drop descriptors
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    server.close()
    connected.resolve(socket)
  })
  server.on('error', connected.reject)
  server.listen(path)
  const late = setTimeout(
    () => connected.reject(new SnapshotterError('DEADLINE_EXCEEDED', `no nydusd came to ${path}`)),
    DEADLINE_MS,
  )
  const asked = ask().catch((error: unknown) => {
    connected.reject(error) // it will not come
    throw error
  })
  asked.catch(() => undefined) // it may fail while nobody waits for it yet: it is told below
  try {
    const socket = await connected.promise
    try {
      const result = await act((socket as unknown as { _handle: { fd: number } })._handle.fd) // Node has no other name for it
      socket.end()
      await asked
      return result
    } finally {
      socket.destroy()
    }
  } finally {
    clearTimeout(late)
    server.close()
    rmSync(path, { force: true })
    await asked.catch(() => undefined) // told by `connected`, or by the wait above
  }
}
