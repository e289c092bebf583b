import { type MessagePort, Worker } from 'node:worker_threads'
import { DaemonError, messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import type { FilesNews, FilesWorkerMessage } from './messages.ts'

/** The thread for shared directories and overlays, seen from the main thread. It starts when it is made: a session that only has images never does. */
export class FilesThread {
  readonly #worker: Worker
  readonly #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  readonly #onFailure: (error: Error) => void
  #lastId = 0
  #ended = false

  /** `onFailure`: the thread ended, and with it all that it served. */
  constructor(log: Log, onFailure: (error: Error) => void) {
    const url = new URL(import.meta.url.endsWith('.ts') ? '../files-worker.ts' : './files-worker.cjs', import.meta.url)
    this.#onFailure = onFailure
    this.#worker = new Worker(url, { name: 'files' })
    this.#worker.on('message', (message: FilesWorkerMessage) => this.#told(message, log))
    this.#worker.on('error', (error) => this.#failed(error instanceof Error ? error : new Error(String(error))))
    this.#worker.on('exit', (code) => this.#failed(new Error(`the files thread ended with code ${code}`)))
  }

  /** From this port a serving thread's requests come. */
  connect(port: MessagePort): void {
    this.#post({ kind: 'port', port }, [port])
  }

  /** Answers are written to this FUSE device. */
  setDevice(fd: number): void {
    this.#post({ kind: 'device', fd })
  }

  /** `major:minor` of the session itself, which nobody may enter from inside. */
  setOwnDevice(device: string): void {
    this.#post({ kind: 'own-device', device })
  }

  /** Serves a directory of the host in a slot. Throws DaemonError 'IO'. */
  async attach(slot: number, directory: string): Promise<void> {
    try {
      await this.#ask((id) => ({ kind: 'attach', id, slot, directory }))
    } catch (error) {
      throw new DaemonError('IO', `cannot share ${directory}: ${messageOf(error)}`, {
        cause: error,
        wire: `passthroughfs failed to handle request, ${messageOf(error)}`,
      })
    }
  }

  /** Ends a slot: its files are closed, and what is asked of it from now on is ESTALE. */
  async detach(slot: number): Promise<void> {
    if (!this.#ended) await this.#ask((id) => ({ kind: 'detach', id, slot }))
  }

  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#post({ kind: 'end' })
    this.#worker.unref()
  }

  #ask(message: (id: number) => FilesNews): Promise<void> {
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting.set(id, { resolve, reject })
    this.#post(message(id))
    return promise
  }

  #post(message: FilesNews, transfer: MessagePort[] = []): void {
    this.#worker.postMessage(message, transfer)
  }

  #told(message: FilesWorkerMessage, log: Log): void {
    switch (message.kind) {
      case 'done': {
        const waiting = this.#waiting.get(message.id)
        this.#waiting.delete(message.id)
        if (message.error === undefined) waiting?.resolve()
        else waiting?.reject(new Error(message.error))
        return
      }
      case 'error':
        log.warn(`a request failed: ${message.text}`)
        return
      default:
        message satisfies never
    }
  }

  #failed(error: Error): void {
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
    if (this.#ended) return
    this.#ended = true
    this.#onFailure(error)
  }
}
