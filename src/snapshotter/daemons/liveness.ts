import { connect, type Socket } from 'node:net'
import { listeningProcess } from '../../kernel/index.ts'

const DEADLINE_MS = 5_000

/** An idle connection to a daemon's API: the kernel closes it when the daemon ends, however it ends. */
export class Liveness {
  /** The process that listens. */
  readonly pid: number
  readonly #socket: Socket
  #onEnd: (() => void) | undefined

  private constructor(socket: Socket, pid: number) {
    this.#socket = socket
    this.pid = pid
    socket.unref()
    socket.on('data', () => undefined) // nothing was asked; an end is only seen by who reads
    socket.on('close', () => this.#onEnd?.())
  }

  /** Rejects when nobody listens there. */
  static async watch(path: string): Promise<Liveness> {
    const socket = connect(path)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.on('connect', resolve).on('error', reject)
    const late = setTimeout(() => socket.destroy(new Error(`nobody accepts at ${path}`)), DEADLINE_MS)
    try {
      await promise
      const { fd } = (socket as unknown as { _handle: { fd: number } })._handle // Node has no other name for it
      return new Liveness(socket, listeningProcess(fd))
    } catch (error) {
      socket.destroy()
      throw error
    } finally {
      clearTimeout(late)
    }
  }

  /** Called once, when the other end is gone; at once when it is gone already. */
  onEnd(listener: () => void): void {
    this.#onEnd = listener
    if (this.#socket.destroyed) queueMicrotask(listener)
  }

  stop(): void {
    this.#onEnd = undefined
    this.#socket.destroy()
  }
}
