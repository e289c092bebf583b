import type { DescMethod, DescService } from '@bufbuild/protobuf'
import { type CallOptions as WireOptions, Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js'
import { ContainerdError, statusName } from './errors.ts'
import type { InputInit, MethodKind, Output } from './methods.ts'
import { CHANNEL_OPTIONS, methodDefinition, RECONNECT_OPTIONS } from './methods.ts'

export interface ConnectOptions {
  /** containerd's namespace of all calls; '' for services that have none. */
  readonly namespace: string
  /** How long a call may take that says nothing else, in milliseconds. */
  readonly timeoutMs: number
}

export interface CallOptions {
  readonly signal?: AbortSignal
  /** In milliseconds, of this call; `Infinity` for one that only its signal ends. */
  readonly timeoutMs?: number
  /** More of what travels beside the messages, as `containerd-lease`. */
  readonly metadata?: Readonly<Record<string, string>>
}

/** The methods of a service, to be called. They fail with ContainerdError, whose code is the answer's status. Ending an iteration early cancels its call. */
export type Calls<S extends DescService> = {
  readonly [M in keyof S['method']]: MethodKind<S['method'][M]> extends 'unary'
    ? (request: InputInit<S['method'][M]>, options?: CallOptions) => Promise<Output<S['method'][M]>>
    : MethodKind<S['method'][M]> extends 'server_streaming'
      ? (request: InputInit<S['method'][M]>, options?: CallOptions) => AsyncIterable<Output<S['method'][M]>>
      : MethodKind<S['method'][M]> extends 'bidi_streaming'
        ? (
            requests: AsyncIterable<InputInit<S['method'][M]>>,
            options?: CallOptions,
          ) => AsyncIterable<Output<S['method'][M]>>
        : never
}

/**
 * A client of the services on one Unix socket: containerd, its CRI, or a snapshotter. It connects at the first call and again whenever the connection is lost, so it may be made
 * before its server is there; calls meanwhile fail at once with `UNAVAILABLE`.
 */
export class ContainerdClient {
  readonly #client: Client
  readonly #options: ConnectOptions

  constructor(path: string, options: ConnectOptions) {
    this.#options = options
    this.#client = new Client(`unix:${path}`, credentials.createInsecure(), {
      ...CHANNEL_OPTIONS,
      ...RECONNECT_OPTIONS,
    })
  }

  service<S extends DescService>(description: S): Calls<S> {
    return Object.fromEntries(
      description.methods.map((method) => [method.localName, this.#method(description, method)]),
    ) as never
  }

  close(): void {
    this.#client.close()
  }

  #method(description: DescService, method: DescMethod): unknown {
    const { path, requestSerialize, responseDeserialize } = methodDefinition(description, method)
    if (method.methodKind === 'unary')
      return (request: object, options: CallOptions = {}) =>
        this.#once(
          (metadata, wire, answer) =>
            this.#client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, metadata, wire, answer),
          options,
        )
    if (method.methodKind === 'server_streaming')
      return (request: object, options: CallOptions = {}) =>
        iterate(
          () =>
            this.#client.makeServerStreamRequest(
              path,
              requestSerialize,
              responseDeserialize,
              request,
              ...this.#wire(options),
            ),
          options.signal,
        )
    return (requests: AsyncIterable<object>, options: CallOptions = {}) =>
      iterate(() => {
        const call = this.#client.makeBidiStreamRequest(
          path,
          requestSerialize,
          responseDeserialize,
          ...this.#wire(options),
        )
        void send(requests, call)
        return call
      }, options.signal)
  }

  async #once(
    start: (
      metadata: Metadata,
      wire: WireOptions,
      answer: (error: ServiceError | null, value?: object) => void,
    ) => { cancel(): void },
    options: CallOptions,
  ): Promise<object> {
    const { signal } = options
    refuseAborted(signal)
    let cancel: (() => void) | undefined
    try {
      return await new Promise<object>((resolve, reject) => {
        const call = start(...this.#wire(options), (error, value) => {
          if (error === null && value !== undefined) resolve(value)
          else reject(failure(error))
        })
        cancel = () => call.cancel()
        signal?.addEventListener('abort', cancel)
      })
    } finally {
      if (cancel !== undefined) signal?.removeEventListener('abort', cancel)
    }
  }

  #wire(options: CallOptions): [Metadata, WireOptions] {
    const metadata = new Metadata()
    if (this.#options.namespace !== '') metadata.set('containerd-namespace', this.#options.namespace)
    for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value)
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs
    return [metadata, timeoutMs === Infinity ? {} : { deadline: Date.now() + timeoutMs }]
  }
}

type Answers = AsyncIterable<object> & { cancel(): void }

async function* iterate(start: () => Answers, signal: AbortSignal | undefined): AsyncGenerator<object> {
  refuseAborted(signal)
  const call = start()
  const cancel = (): void => call.cancel()
  signal?.addEventListener('abort', cancel)
  try {
    yield* call
  } catch (error) {
    throw failure(error as Error)
  } finally {
    signal?.removeEventListener('abort', cancel)
    call.cancel()
  }
}

async function send(
  requests: AsyncIterable<object>,
  call: {
    write(message: object, done: (error?: Error | null) => void): boolean
    end(): void
    destroy(error: Error): void
  },
): Promise<void> {
  try {
    for await (const request of requests)
      await new Promise<void>((resolve, reject) => {
        call.write(request, (error) => (error === undefined || error === null ? resolve() : reject(error)))
      })
    call.end()
  } catch (error) {
    // The reader of the answers is told; a call that has ended ignores it.
    call.destroy(error as Error)
  }
}

function refuseAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new ContainerdError('CANCELLED', 'the call was cancelled before it began')
}

function failure(error: Error | null): ContainerdError {
  if (error === null) return new ContainerdError('INTERNAL', 'the answer has neither a message nor an error')
  if (error instanceof ContainerdError) return error
  const { code, details } = error as Partial<ServiceError>
  if (typeof code !== 'number') return new ContainerdError('UNKNOWN', error.message, { cause: error })
  return new ContainerdError(statusName(code), details ?? error.message, { cause: error })
}
