import { once } from 'node:events'
import type { DescService } from '@bufbuild/protobuf'
import type { Server, ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js'
import type { CallsUnderWay, ServedCall } from './call.ts'
import { ContainerdError } from './errors.ts'
import type { Encoded, Input, MethodKind, OutputInit } from './methods.ts'
import { methodDefinition } from './methods.ts'
import { statusOf } from './status.ts'
import type { UnaryMethod } from './unary.ts'

/** The methods of a service as functions: one answer, or a stream of them. What they throw is the call's status: its code, when it is a ContainerdError. */
export type Handlers<S extends DescService> = {
  readonly [M in keyof S['method']]: MethodKind<S['method'][M]> extends 'unary'
    ? (request: Input<S['method'][M]>, call: ServedCall) => Promise<OutputInit<S['method'][M]> | Encoded>
    : MethodKind<S['method'][M]> extends 'server_streaming'
      ? (request: Input<S['method'][M]>, call: ServedCall) => AsyncIterable<OutputInit<S['method'][M]> | Encoded>
      : never
}

/** Where methods are registered: those of one answer by their paths, streams with grpc-js. */
interface Registry {
  readonly server: Server
  readonly unary: Map<string, UnaryMethod>
  readonly calls: CallsUnderWay
}

/** A service with what answers it, ready for `serve`. */
export interface Service {
  readonly name: string
  register(registry: Registry): void
}

type UnaryHandler = UnaryMethod['handle']
type StreamHandler = (request: object, call: ServedCall) => AsyncIterable<object>

/** Binds a service to its handlers. */
export function service<S extends DescService>(description: S, handlers: Handlers<S>): Service {
  const byName: Readonly<Record<string, UnaryHandler | StreamHandler | undefined>> = handlers as never
  return {
    name: description.typeName,
    register: (registry) => {
      for (const method of description.methods) {
        const handler = byName[method.localName]
        if (handler !== undefined) register(registry, methodDefinition(description, method), handler)
      }
    },
  }
}

function register(
  { server, unary, calls }: Registry,
  method: ReturnType<typeof methodDefinition>,
  handler: UnaryHandler | StreamHandler,
): void {
  const { path, requestDeserialize: decode, responseSerialize: encode } = method
  if (!method.responseStream) unary.set(path, { decode, encode, handle: handler as UnaryHandler })
  else {
    const run = (call: ServerWritableStream<object, object>): void =>
      void answerStream(call, calls, handler as StreamHandler)
    server.register(path, run, encode, decode, 'serverStream')
  }
}

async function answerStream(
  call: ServerWritableStream<object, object>,
  calls: CallsUnderWay,
  handler: StreamHandler,
): Promise<void> {
  const abort = calls.begin()
  const cancel = (): void => abort.abort()
  call.once('cancelled', cancel)
  if (call.cancelled) cancel()
  const { signal } = abort
  const namespace = call.metadata.get('containerd-namespace')[0]
  try {
    for await (const message of handler(call.request, {
      signal,
      namespace: typeof namespace === 'string' ? namespace : '',
    })) {
      if (signal.aborted) break
      if (!call.write(message)) await once(call, 'drain', { signal })
    }
    call.end()
  } catch (error) {
    // grpc-js makes the call's status of it.
    call.emit('error', statusOf(error))
  } finally {
    // grpc-js also says so of a call that was answered, when its stream closes.
    call.off('cancelled', cancel)
    calls.end(abort)
  }
}

/** A service whose methods are not known one by one: each call comes as it is on the wire, whatever its kind, its messages as bytes. */
export interface RawService {
  /** With its package, as in `runtime.v1.ImageService`. */
  readonly name: string
  /** Answers one call of the method `path`; the call is grpc-js's own, its metadata, deadline and cancellation are there. */
  handle(call: ServerDuplexStream<Buffer, Buffer>, path: string): void
}

/**
 * Gives every method of the raw services, known or not, to their handlers. grpc-js has no way to ask for calls of unknown methods, only a table of known ones;
 * this looks the raw services up where it looks the table up.
 */
export function registerRaw(server: Server, services: readonly RawService[]): void {
  const inner = server as unknown as { _retrieveHandler?: (path: string) => object | null }
  const known = inner._retrieveHandler
  if (known === undefined)
    throw new ContainerdError(
      'INTERNAL',
      'cannot serve methods by name: this release of @grpc/grpc-js looks them up otherwise',
    )
  inner._retrieveHandler = (path) => {
    const raw = services.find(({ name }) => path.startsWith(`/${name}/`))
    if (raw === undefined) return known.call(server, path)
    const same = (bytes: Buffer): Buffer => bytes
    return {
      func: (call: ServerDuplexStream<Buffer, Buffer>) => raw.handle(call, path),
      serialize: same,
      deserialize: same,
      type: 'bidi',
      path,
    }
  }
}
