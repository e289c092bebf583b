/** The snapshotter room: containerd-nydus-grpc. Parts have doors of their own, in their folders. */
export type { SnapshotterErrorCode } from './errors.ts'
export { SnapshotterError } from './errors.ts'
export type { BootstrapDetector, Operation, ServedImages, SnapshotterParts } from './parts.ts'
export { runSnapshotter } from './run.ts'
export { snapshotsService } from './service.ts'
export type { Labels, Mount, Snapshot, Usage } from './snapshot.ts'
export type { Snapshotter } from './snapshotter.ts'
export { NydusSnapshotter } from './snapshotter.ts'
