import { KernelError } from '../../kernel/index.ts'
import { FuseQueue, UnixListener, type UnixStream, VhostSession } from '../../kernel/vm/index.ts'
import { DaemonError, messageOf } from '../errors.ts'
import { FileSystemCounters } from '../metrics.ts'
import { FuseFileSystem, type LateRead, type ServedTree } from '../transports/fuse-handler.ts'
import { ListingHabits } from '../transports/listing-habits.ts'
import type { Session, FuseSessionOptions } from '../transports/session.ts'

/** The high-priority queue, which has FORGET and INTERRUPT, and one for all else. */
const QUEUES = 2
const QUEUE_SIZE = 1024
/** Its number among the tables of recorded files. */
const THREAD = 1

/** A session whose requests come from a virtual machine's driver (virtio-fs), one machine at a time. They are answered on this thread, which also has the guest's memory. */
export class VirtioFsSession implements Session {
  readonly at: string
  readonly counters = [new FileSystemCounters()]
  readonly #options: FuseSessionOptions
  readonly #files: FuseFileSystem
  readonly #queue: FuseQueue
  #listener: UnixListener | undefined
  #machine: VhostSession | undefined

  /** `options.at` is the path of the socket. */
  constructor(options: FuseSessionOptions) {
    this.at = options.at
    this.#options = options
    const { log, wishes } = options
    this.#files = new FuseFileSystem({
      counters: this.counters[0] ?? new FileSystemCounters(),
      late: (read) => this.#later(read),
      forward: () => {
        throw new Error('no directories are shared here')
      },
      thread: THREAD,
      exchangesOpens: wishes.exchangesOpens,
      habits: new ListingHabits(),
    })
    this.#queue = new FuseQueue({
      handler: (request, reply) => this.#files.answer(request, reply),
      wishes,
      onForget: () => undefined,
      onInit: ({ kernelMinor }) => log.debug(`FUSE session 7.${kernelMinor} at ${this.at}`),
      onError: (error) => log.warn(`a request to ${this.at} failed: ${messageOf(error)}`),
    })
  }

  /** Listens: a machine may come at any time from now on. Throws DaemonError. */
  async mount(tree: ServedTree): Promise<void> {
    await this.publish(tree)
    try {
      this.#listener = UnixListener.listen(this.at, (stream) => this.#admit(stream))
    } catch (error) {
      if (!(error instanceof KernelError)) throw error
      throw new DaemonError('IO', `${error.message}; give another --sock`, { cause: error })
    }
  }

  publish(tree: ServedTree): Promise<void> {
    this.#files.update(tree)
    return Promise.resolve()
  }

  answer(read: LateRead, message: Buffer, bytes: number, errno: number): void {
    if (this.#machine !== undefined) this.#queue.answer(this.#machine, read.low, read.high, message, bytes, errno)
  }

  /** There is no queue for it: what a guest knows it knows until it forgets by itself. A name that is not there it never keeps. */
  forget(): Promise<void> {
    return Promise.resolve()
  }

  /** Throws DaemonError 'UNSUPPORTED'. */
  useFiles(): Promise<void> {
    return Promise.reject(
      new DaemonError(
        'UNSUPPORTED',
        'virtio-fs serves images as they are: neither directories (passthrough_fs) nor images with an overlay; these are for FUSE',
        {
          wire: 'invalid argument `passthrough_fs and overlay are not supported over virtio-fs`',
        },
      ),
    )
  }

  /** A machine's memory and queues cannot be given to another daemon: there is no device, and none is taken. */
  readonly device = undefined
  readonly facts = undefined

  adopt(): never {
    throw cannotMove()
  }

  serve(): Promise<never> {
    return Promise.reject(cannotMove())
  }

  leave(): Promise<void> {
    return this.stopServing()
  }

  stopServing(): Promise<void> {
    this.#listener?.close('with its name')
    this.#listener = undefined
    this.#machine?.close()
    this.#machine = undefined
    this.#queue.forgetAll()
    return Promise.resolve()
  }

  unmount(): Promise<void> {
    return this.stopServing()
  }

  close(): void {
    // all of it is over when nobody is served any more
  }

  detachNow(): void {
    // a socket of a dead daemon is replaced by the next one
  }

  /** Nobody else can have a part in it. */
  readonly isAtPoint = true

  get threads(): number {
    return this.#listener === undefined ? 0 : 1
  }

  #later(read: LateRead): void {
    this.#queue.later(read.low, read.high)
    // not before the queue has put the request aside
    queueMicrotask(() => this.#options.onLateRead(read))
  }

  #admit(stream: UnixStream): void {
    const { log } = this.#options
    if (this.#machine !== undefined) {
      log.warn(`${this.at} has a machine already; another one is sent away`)
      stream.close()
      return
    }
    log.info(`a machine has connected to ${this.at}`)
    const machine = new VhostSession(stream, {
      queues: QUEUES,
      queueSize: QUEUE_SIZE,
      onKick: (ring) => this.#queue.serve(machine, ring),
      onEnd: (why) => {
        log.info(`the machine at ${this.at} is gone: ${why}`)
        this.#machine = undefined
        this.#queue.forgetAll()
      },
    })
    this.#machine = machine
  }
}

function cannotMove(): DaemonError {
  return new DaemonError('UNSUPPORTED', 'a session of virtio-fs stays with its daemon')
}
