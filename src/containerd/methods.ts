import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { MethodDefinition } from '@grpc/grpc-js'

/** Of both sides, for both directions: containerd's own bound. */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024

export const CHANNEL_OPTIONS = {
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
  // Counts and logs of calls that nobody reads.
  'grpc.enable_channelz': 0,
} as const

/** Of clients. */
export const RECONNECT_OPTIONS = {
  'grpc.enable_http_proxy': 0,
  // Of Unix sockets: a server that restarts is there again in moments.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 3000,
  // Two clients of one socket are two connections: closing one must not end the other's calls.
  'grpc.use_local_subchannel_pool': 1,
} as const

/** What goes through a method. `init` is what one may give for it: fields may lack. */
export interface MethodShape<M> {
  readonly input: M extends { input: infer I extends DescMessage } ? I : never
  readonly output: M extends { output: infer O extends DescMessage } ? O : never
}
export type Input<M> = MessageShape<MethodShape<M>['input']>
export type InputInit<M> = MessageInitShape<MethodShape<M>['input']>
export type Output<M> = MessageShape<MethodShape<M>['output']>
export type OutputInit<M> = MessageInitShape<MethodShape<M>['output']>
/** An answer whose bytes are there already. */
export type Encoded = Buffer
export type MethodKind<M> = M extends { methodKind: infer K } ? K : never

/** A method as grpc-js wants it. Both sides may give parts of messages: what lacks has its default. */
export function methodDefinition(service: DescService, method: DescMethod): MethodDefinition<object, object> {
  return {
    path: `/${service.typeName}/${method.name}`,
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: (message) => encode(method.input, message),
    requestDeserialize: (bytes) => fromBinary(method.input, bytes),
    responseSerialize: (message) => encode(method.output, message),
    responseDeserialize: (bytes) => fromBinary(method.output, bytes),
  }
}

function encode(schema: DescMessage, message: object): Buffer {
  if (Buffer.isBuffer(message)) return message
  const bytes = toBinary(schema, create(schema, message as MessageInitShape<DescMessage>))
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
