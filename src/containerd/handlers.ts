import { once } from 'node:events'
import type { DescMethod, DescService } from '@bufbuild/protobuf'
import type { Server, ServerDuplexStream, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js'
import type { CallsUnderWay, ServedCall } from './call.ts'
import { ContainerdError, STATUS_CODE } from './errors.ts'
import type { Encoded, Input, MethodKind, OutputInit } from './methods.ts'
import { methodDefinition } from './methods.ts'

/** The methods of a service as functions: one answer, or a stream of them. What they throw is the call's status: its code, when it is a ContainerdError. */
export type Handlers<S extends DescService> = {
  readonly [M in keyof S['method']]: MethodKind<S['method'][M]> extends 'unary'
    ? (request: Input<S['method'][M]>, call: ServedCall) => Promise<OutputInit<S['method'][M]>>
    : MethodKind<S['method'][M]> extends 'server_streaming'
      ? (request: Input<S['method'][M]>, call: ServedCall) => AsyncIterable<OutputInit<S['method'][M]> | Encoded>
      : never
}

/** A service with what answers it, ready for `serve`. */
export interface Service {
  readonly name: string
  register(server: Server, calls: CallsUnderWay): void
}

type AnyHandler = (request: object, call: ServedCall) => Promise<object> | AsyncIterable<object>

/** Binds a service to its handlers. */
export function service<S extends DescService>(description: S, handlers: Handlers<S>): Service {
  const byName: Readonly<Record<string, AnyHandler | undefined>> = handlers as never
  return {
    name: description.typeName,
    register: (server, calls) => {
      for (const method of description.methods) {
        const handler = byName[method.localName]
        if (handler !== undefined) register({ server, calls, description, method, handler })
      }
    },
  }
}

function register(parts: {
  server: Server
  calls: CallsUnderWay
  description: DescService
  method: DescMethod
  handler: AnyHandler
}): void {
  const { server, calls, method, handler } = parts
  const { path, requestDeserialize, responseSerialize } = methodDefinition(parts.description, method)
  const streams = method.methodKind === 'server_streaming'
  const run = streams
    ? (call: ServerWritableStream<object, object>): void => void answerStream(call, calls, handler as never)
    : (call: ServerUnaryCall<object, object>, answer: sendUnaryData<object>): void =>
        void answerOnce(call, answer, calls, handler as never)
  server.register(path, run, responseSerialize, requestDeserialize, streams ? 'serverStream' : 'unary')
}

async function answerOnce(
  call: ServerUnaryCall<object, object>,
  answer: sendUnaryData<object>,
  calls: CallsUnderWay,
  handler: (request: object, call: ServedCall) => Promise<object>,
): Promise<void> {
  try {
    answer(null, await handler(call.request, calls.begin(call)))
  } catch (error) {
    answer(statusOf(error))
  } finally {
    calls.end(call)
  }
}

async function answerStream(
  call: ServerWritableStream<object, object>,
  calls: CallsUnderWay,
  handler: (request: object, call: ServedCall) => AsyncIterable<object>,
): Promise<void> {
  const served = calls.begin(call)
  try {
    for await (const message of handler(call.request, served)) {
      if (served.signal.aborted) break
      if (!call.write(message)) await once(call, 'drain', { signal: served.signal })
    }
    call.end()
  } catch (error) {
    // grpc-js makes the call's status of it.
    call.emit('error', statusOf(error))
  } finally {
    calls.end(call)
  }
}

/** Longer messages could fill the headers that they travel in. */
const MAX_DETAILS = 8 * 1024

function statusOf(error: unknown): { code: number; details: string } {
  const details = error instanceof Error ? error.message : String(error)
  return {
    code: error instanceof ContainerdError ? STATUS_CODE[error.code] : STATUS_CODE.UNKNOWN,
    details: details.length > MAX_DETAILS ? `${details.slice(0, MAX_DETAILS)}…` : details,
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
