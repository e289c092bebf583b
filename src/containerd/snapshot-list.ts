import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import type { Encoded } from './methods.ts'
import { type InfoSchema, ListSnapshotsResponseSchema } from './proto/snapshots_pb.ts'

/** A snapshot as it stands in lists. containerd asks for all of them every few seconds: who keeps this need not encode it again. */
export function encodeInfo(info: MessageInitShape<typeof InfoSchema>): Uint8Array {
  return toBinary(ListSnapshotsResponseSchema, create(ListSnapshotsResponseSchema, { info: [info] }))
}

/** An answer of `list` with encoded snapshots: messages of protocol buffers, one after another, are one message with the fields of all. */
export function listOf(infos: readonly Uint8Array[]): Encoded {
  return Buffer.concat(infos)
}
