import { type MessagePort, Worker } from 'node:worker_threads'
import { BUILD } from '../../kernel/build/index.ts'
import { DaemonError, messageOf } from '../errors.ts'
import { noMoreThreads } from '../later-threads.ts'
import type { Log } from '../log.ts'
import type { OverlaySettings } from '../config/settings.ts'
import { FileSystemCounters } from '../metrics.ts'
import type { LateRead, ServedImage } from '../transports/fuse-handler.ts'
import type { FilesNews, FilesWorkerData, FilesWorkerMessage, OverlayFiles, SharedFiles } from './messages.ts'

const END_DEADLINE_MS = 2_000
/** A host that does not answer holds up the thread, but not who mounts and unmounts. */
const ANSWER_DEADLINE_MS = 30_000

export interface FilesThreadOptions {
  readonly log: Log
  /** A read of an image below an overlay whose data is not here yet. */
  readonly onLateRead: (read: LateRead) => void
  /** Data of an image that is copied; rejects when it cannot be had in time. */
  readonly readImage: (slot: number, ino: number, offset: number, count: number) => Promise<Uint8Array>
  /** The thread ended, and with it all that it served. Not called for one that never served. */
  readonly onFailure: (error: Error) => void
  /** For {@link FilesThread.attach}, {@link FilesThread.attachOverlay} and {@link FilesThread.detach}. */
  readonly answerDeadlineMs?: number
}

/** The thread for shared directories and overlays, seen from the main thread. It starts when it is made: a session that only has images never does. */
export class FilesThread {
  /** Of reads that the thread answers from images' caches. */
  readonly counters = new FileSystemCounters()
  readonly #worker: Worker
  readonly #options: FilesThreadOptions
  readonly #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>()
  readonly #gone = Promise.withResolvers<void>()
  #lastId = 0
  /** The thread runs, and is of our build. */
  #isReady = false
  #ended: false | Error = false

  constructor(options: FilesThreadOptions) {
    const url = new URL(import.meta.url.endsWith('.ts') ? '../files-worker.ts' : './files-worker.cjs', import.meta.url)
    this.#options = options
    this.#worker = new Worker(url, {
      name: 'files',
      workerData: { build: BUILD, counters: this.counters.numbers } satisfies FilesWorkerData,
    })
    this.#worker.on('message', (message: FilesWorkerMessage) => this.#told(message))
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
  async attach(slot: number, what: Omit<SharedFiles, 'kind'>): Promise<void> {
    try {
      await this.#attach(slot, { kind: 'directory', ...what })
    } catch (error) {
      throw new DaemonError('IO', `cannot share ${what.directory}: ${messageOf(error)}`, {
        cause: error,
        wire: `passthroughfs failed to handle request, ${messageOf(error)}`,
      })
    }
  }

  /** Serves an image with an upper directory over it. Throws DaemonError 'IO'. */
  async attachOverlay(
    slot: number,
    image: ServedImage,
    { upper, work, journal, isRestored }: OverlaySettings & Pick<OverlayFiles, 'journal' | 'isRestored'>,
  ): Promise<void> {
    const { bytes, inlinedBlobId, hot } = image
    const what = { kind: 'overlay', image: { bytes, inlinedBlobId, hot }, upper, work, journal, isRestored } as const
    try {
      await this.#attach(slot, what)
    } catch (error) {
      throw new DaemonError(
        'IO',
        `cannot put an overlay over the image, with upper directory ${upper}: ${messageOf(error)}; see "overlay" in docs/configuration.md`,
        {
          cause: error,
          wire: `invalid configuration, ${messageOf(error)}`,
        },
      )
    }
  }

  /** Ends a slot: its files are closed, and what is asked of it from now on is ESTALE. Where the host does not answer in time, as soon as it does. */
  async detach(slot: number): Promise<void> {
    if (this.#ended) return
    try {
      await this.#ask((id) => ({ kind: 'detach', id, slot }))
    } catch (error) {
      if (!(error instanceof LateAnswer)) throw error
      this.#options.log.warn(`files of what was unmounted stay open for now: ${error.message}`)
    }
  }

  /** `isLeft`: another process goes on with what is in hand. Resolves when the thread uses no descriptors any more, its own or those of the session and the caches; or after {@link END_DEADLINE_MS}, when the host does not answer it. */
  async end(isLeft = false): Promise<void> {
    if (this.#ended) return
    this.#ended = ended()
    this.#post({ kind: 'end', isLeft })
    const deadline = setTimeout(this.#gone.resolve, END_DEADLINE_MS)
    await this.#gone.promise
    clearTimeout(deadline)
    this.#worker.unref()
  }

  async #attach(slot: number, what: SharedFiles | OverlayFiles): Promise<void> {
    try {
      await this.#ask((id) => ({ kind: 'attach', id, slot, what }))
    } catch (error) {
      // What comes late is nobody's: the slot goes to others.
      if (error instanceof LateAnswer) this.#post({ kind: 'detach', id: ++this.#lastId, slot })
      throw error
    }
  }

  async #ask(message: (id: number) => FilesNews): Promise<void> {
    if (this.#ended) throw this.#ended
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting.set(id, { resolve, reject })
    this.#post(message(id))
    const ms = this.#options.answerDeadlineMs ?? ANSWER_DEADLINE_MS
    const deadline = setTimeout(() => {
      this.#waiting.delete(id)
      reject(new LateAnswer(ms))
    }, ms)
    try {
      await promise
    } finally {
      clearTimeout(deadline)
    }
  }

  #post(message: FilesNews, transfer: MessagePort[] = []): void {
    this.#worker.postMessage(message, transfer)
  }

  #told(message: FilesWorkerMessage): void {
    switch (message.kind) {
      case 'ready':
        this.#isReady = true
        return
      case 'done': {
        const waiting = this.#waiting.get(message.id)
        this.#waiting.delete(message.id)
        if (message.error === undefined) waiting?.resolve()
        else waiting?.reject(new Error(message.error))
        return
      }
      case 'error':
        this.#options.log.warn(`a request failed: ${message.text}`)
        return
      case 'late':
        this.#options.onLateRead(message.read)
        return
      case 'fetch':
        void this.#fetch(message)
        return
      default:
        message satisfies never
    }
  }

  async #fetch({ id, slot, ino, offset, count }: Extract<FilesWorkerMessage, { kind: 'fetch' }>): Promise<void> {
    let bytes: Uint8Array | undefined
    try {
      bytes = await this.#options.readImage(slot, ino, offset, count)
    } catch (error) {
      this.#options.log.error(`cannot copy inode ${ino} of an image to the upper directory: ${messageOf(error)}`)
    }
    this.#post({ kind: 'fetched', id, bytes })
  }

  #failed(cause: Error): void {
    const error =
      this.#isReady || this.#ended ? cause : new Error(noMoreThreads('serve shared directories and overlays', cause))
    for (const { reject } of this.#waiting.values()) reject(error)
    this.#waiting.clear()
    this.#gone.resolve()
    if (this.#ended) return
    this.#ended = error
    if (this.#isReady) this.#options.onFailure(error)
    else this.#options.log.error(error.message)
  }
}

/** The thread waits for the host, whose disk or network does not answer. */
class LateAnswer extends Error {
  constructor(ms: number) {
    super(
      `the host did not answer in ${ms / 1000} s; look for a network file system that hangs, of this directory or another shared one`,
    )
  }
}

function ended(): Error {
  return new Error('the files thread has ended')
}
