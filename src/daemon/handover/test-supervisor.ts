/** For tests: a supervisor as the original's snapshotter has one. It listens only while it expects a daemon. */
import { closeSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { receiveDescriptors, sendDescriptor } from '../../kernel/index.ts'
import type { HandedOver } from './supervisor.ts'

const DEADLINE_MS = 10_000

export class TestSupervisor implements Disposable {
  readonly path: string
  kept: HandedOver | undefined

  constructor(path: string) {
    this.path = path
  }

  /** Listens while `ask` makes a daemon send what it has. */
  async fetch(ask: () => Promise<unknown>): Promise<HandedOver> {
    const [handed] = await Promise.all([
      this.#once(async (socket) => {
        const { data, descriptors } = await receiveDescriptors(socket, 1 << 30, DEADLINE_MS)
        const [device = -1, ...others] = descriptors
        for (const fd of others) closeSync(fd)
        return { state: data, device }
      }),
      ask(),
    ])
    this[Symbol.dispose]()
    this.kept = handed
    return handed
  }

  /** Listens while `ask` makes a daemon take what was fetched, or something else. */
  async offer<T>(ask: () => Promise<T>, what: HandedOver | undefined = this.kept): Promise<T> {
    const [, answer] = await Promise.all([
      this.#once((socket) => sendDescriptor(socket, what?.device ?? 0, what?.state ?? Buffer.of(0), DEADLINE_MS)),
      ask(),
    ])
    return answer
  }

  /** One connection. Node accepts it and must not read from it: it would drop descriptors. */
  async #once<T>(act: (socket: number) => Promise<T>): Promise<T> {
    rmSync(this.path, { force: true })
    const connected = Promise.withResolvers<Socket>()
    const server = createServer({ pauseOnConnect: true }, (socket) => connected.resolve(socket))
    await new Promise<void>((resolve) => server.listen(this.path, resolve))
    const late = setTimeout(() => connected.reject(new Error('no daemon came')), DEADLINE_MS)
    try {
      const socket = await connected.promise
      try {
        return await act((socket as unknown as { _handle: { fd: number } })._handle.fd)
      } finally {
        socket.destroy()
      }
    } finally {
      clearTimeout(late)
      server.close()
    }
  }

  [Symbol.dispose](): void {
    if (this.kept !== undefined) closeSync(this.kept.device)
    this.kept = undefined
  }
}
