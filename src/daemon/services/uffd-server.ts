import { closeSync } from 'node:fs'
import { UnixListener, type UnixStream } from '../../kernel/vm/index.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { FaultServer } from './fault-server.ts'
import type { ImageDisk } from './image-disk.ts'
import { type ClientMessage, DocumentStream, parseMessage, statAnswer } from './uffd-protocol.ts'

export interface UffdOptions {
  readonly socketPath: string
  readonly disk: ImageDisk
  readonly log: Log
}

const READ_BYTES = 64 << 10
/** Descriptors that came and that no handshake took yet. */
const MAX_PENDING = 16

/** Serves a disk to virtual machine monitors, by the page faults of the memory that they map it to. */
export class UffdServer {
  readonly #options: UffdOptions
  readonly #listener: UnixListener
  readonly #connections = new Set<UffdConnection>()
  #count = 0

  /** Listens; a socket that lies there is replaced. Throws KernelError. */
  constructor(options: UffdOptions) {
    this.#options = options
    this.#listener = UnixListener.listen(options.socketPath, (stream) => this.#admit(stream))
  }

  /** Hangs up on everybody. The socket's file stays, as the original leaves it. */
  close(): void {
    this.#listener.close()
    for (const connection of this.#connections) connection.close()
  }

  #admit(stream: UnixStream): void {
    const connection = new UffdConnection(stream, ++this.#count, this.#options, () =>
      this.#connections.delete(connection),
    )
    this.#connections.add(connection)
  }
}

/** One monitor. */
class UffdConnection {
  readonly #stream: UnixStream
  readonly #name: string
  readonly #options: UffdOptions
  readonly #onClose: () => void
  readonly #documents = new DocumentStream()
  readonly #buffer = Buffer.allocUnsafeSlow(READ_BYTES)
  readonly #descriptors: number[] = []
  #faults: FaultServer | undefined
  #isClosed = false

  constructor(stream: UnixStream, number: number, options: UffdOptions, onClose: () => void) {
    this.#stream = stream
    this.#name = `uffd client ${number}`
    this.#options = options
    this.#onClose = onClose
    stream.listen({ onReadable: () => this.#read(), onError: (error) => this.#end(messageOf(error)) })
    options.log.info(`${this.#name} has connected`)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#faults?.close()
    for (const fd of this.#descriptors.splice(0)) closeSync(fd)
    this.#stream.close()
    this.#onClose()
  }

  #end(why: string): void {
    if (this.#isClosed) return
    this.#options.log.info(`${this.#name} is over: ${why}`)
    this.close()
  }

  #read(): void {
    try {
      for (let received = this.#stream.receive(this.#buffer); received !== undefined; ) {
        this.#descriptors.push(...received.descriptors)
        if (received.length === 0) return this.#end('it has hung up')
        for (const text of this.#documents.push(this.#buffer.subarray(0, received.length)))
          this.#take(parseMessage(text))
        if (this.#descriptors.length > MAX_PENDING) return this.#end('it sends descriptors without a handshake')
        if (this.#isClosed) return undefined
        received = this.#stream.receive(this.#buffer)
      }
    } catch (error) {
      this.#options.log.warn(`${this.#name}: ${messageOf(error)}`)
      this.#end('its messages cannot be used')
    }
  }

  #take(message: ClientMessage): void {
    const { disk, log } = this.#options
    switch (message.kind) {
      case 'stat':
        return this.#stream.send(statAnswer(disk))
      case 'other':
        return log.warn(`${this.#name} sent a message of type ${message.type}, which only servers send`)
      case 'handshake':
        return this.#handshake(message)
      default:
        return message satisfies never
    }
  }

  #handshake({ regions, isCopy, prefault }: Extract<ClientMessage, { kind: 'handshake' }>): void {
    const { disk, log } = this.#options
    const [fd, ...others] = this.#descriptors.splice(0)
    for (const other of others) closeSync(other)
    if (this.#faults !== undefined) {
      if (fd !== undefined) closeSync(fd)
      return log.warn(`${this.#name} sent a second handshake, which is ignored`)
    }
    if (fd === undefined) return this.#end('its handshake came without a userfaultfd')
    log.info(`${this.#name}: ${regions.length} regions, ${isCopy ? 'copies' : 'mapped files'}`)
    this.#faults = new FaultServer(fd, {
      regions,
      isCopy,
      disk,
      stream: this.#stream,
      onError: (text) => log.error(`${this.#name}: ${text}`),
      onEnd: (why) => this.#end(why),
    })
    if (prefault && !isCopy) void this.#faults.prefault()
  }
}
