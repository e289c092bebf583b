import { Client, credentials, type ServerDuplexStream, type StatusObject, status as Status } from '@grpc/grpc-js'
import { STATUS_CODE } from './errors.ts'
import type { RawService } from './handlers.ts'
import { CHANNEL_OPTIONS, RECONNECT_OPTIONS } from './methods.ts'

/** Sees one call that passes through. The messages are those on the wire, and go on as they are. What these throw ends the call. */
export interface CallWatcher {
  /** Before the message goes on. */
  request?(message: Uint8Array): void
  response?(message: Uint8Array): void
  /** Once, before the caller learns of it. */
  ended?(isOk: boolean): void
}

export interface ForwarderOptions {
  /** With its package, as in `runtime.v1.ImageService`. */
  readonly name: string
  /** Socket of the server that answers in the end. */
  readonly path: string
  /** Undefined: nobody wants to see the calls of that method. */
  readonly watch: (method: string) => CallWatcher | undefined
}

/**
 * A service whose calls are answered by another server: every method, also such as nobody here has heard of, of any kind. Deadlines, metadata, cancellation and statuses pass through, both ways. It connects with the first call,
 * and again when the connection was lost; calls while nobody answers there fail with UNAVAILABLE.
 */
export class ServiceForwarder implements RawService {
  readonly name: string
  readonly #options: ForwarderOptions
  #client: Client | undefined

  constructor(options: ForwarderOptions) {
    this.name = options.name
    this.#options = options
  }

  handle(call: ServerDuplexStream<Buffer, Buffer>, path: string): void {
    this.#client ??= new Client(`unix:${this.#options.path}`, credentials.createInsecure(), {
      ...CHANNEL_OPTIONS,
      ...RECONNECT_OPTIONS,
    })
    forward(call, path, this.#client, this.#options.watch(path.slice(path.lastIndexOf('/') + 1)))
  }

  close(): void {
    this.#client?.close()
  }
}

/** A unary call is a stream of one message on the wire: one way for all kinds. */
function forward(
  call: ServerDuplexStream<Buffer, Buffer>,
  path: string,
  client: Client,
  watcher: CallWatcher | undefined,
): void {
  const same = (bytes: Buffer): Buffer => bytes
  const onward = client.makeBidiStreamRequest(path, same, same, call.metadata.clone(), { deadline: call.getDeadline() })
  let isOver = false
  let status: StatusObject | undefined
  let isRead = false
  const end = (answer: Pick<StatusObject, 'code' | 'details'> & Partial<StatusObject>): void => {
    if (isOver) return
    isOver = true
    watcher?.ended?.(answer.code === Status.OK)
    if (answer.code === Status.OK) call.end(answer.metadata)
    else call.emit('error', answer) // grpc-js makes the call's status of it
  }
  /** The status may be known before the last message has been passed on. */
  const endWhenRead = (): void => {
    if (status !== undefined && isRead) end(status)
  }
  const guarded = (act: () => void): void => {
    try {
      act()
    } catch (error) {
      onward.cancel()
      end({ code: STATUS_CODE.INTERNAL, details: (error as Error).message })
    }
  }
  call.on('data', (message: Buffer) =>
    guarded(() => {
      watcher?.request?.(message)
      pass(message, call, onward)
    }),
  )
  call.on('end', () => onward.end())
  call.on('cancelled', () => {
    onward.cancel()
    end({ code: STATUS_CODE.CANCELLED, details: 'the caller gave up' })
  })
  onward.on('metadata', (metadata) => call.sendMetadata(metadata))
  onward.on('data', (message: Buffer) =>
    guarded(() => {
      watcher?.response?.(message)
      if (!isOver) pass(message, onward, call)
    }),
  )
  onward.on('error', () => {}) // its status says the same
  onward.on('status', (given: StatusObject) => {
    status = given
    endWhenRead()
  })
  onward.on('end', () => {
    isRead = true
    endWhenRead()
  })
}

interface Source {
  pause(): unknown
  resume(): unknown
}
interface Sink {
  write(message: Buffer): boolean
  once(event: 'drain', then: () => void): unknown
}

/** A slow reader slows the writer down, not this process's memory. */
function pass(message: Buffer, from: Source, to: Sink): void {
  if (to.write(message)) return
  from.pause()
  to.once('drain', () => from.resume())
}
