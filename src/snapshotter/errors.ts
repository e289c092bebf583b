/** What can go wrong in the snapshotter, for programs; the message is for people. Codes that containerd compares are named as its own. */
export type SnapshotterErrorCode =
  /** The key or name is taken; of a layer to unpack: it is there and need not be unpacked. */
  | 'ALREADY_EXISTS'
  /** There is no snapshot, image, daemon or parent of that name. */
  | 'NOT_FOUND'
  /** The snapshot is of another kind than the call needs, or others stand on it. */
  | 'FAILED_PRECONDITION'
  /** A key, label, filter or field that cannot be used; the message names it. */
  | 'INVALID_ARGUMENT'
  /** The disk or a limit is full. */
  | 'RESOURCE_EXHAUSTED'
  /** Something else is needed that does not answer now: a registry, a daemon; the same call may succeed later. */
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'CANCELLED'
  | 'UNIMPLEMENTED'
  /** Another process uses the root directory. */
  | 'LOCKED'
  /** A key of the configuration, or a combination of keys, that cannot be used; the message names it and says what to write. */
  | 'BAD_CONFIG'
  /** The database or a file of the root is not what it must be. */
  | 'BAD_STATE'
  /** A call to Linux or to another program failed. */
  | 'INTERNAL'

/** An error of the snapshotter. */
export class SnapshotterError extends Error {
  override readonly name = 'SnapshotterError'
  readonly code: SnapshotterErrorCode

  constructor(code: SnapshotterErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
