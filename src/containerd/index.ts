/**
 * The containerd room: the wire of containerd and CRI. `serve` answers services on a Unix socket, `ContainerdClient` calls them; messages and services are made from the trimmed
 * copies of containerd's definitions in `proto/`.
 */
export type { ServedCall } from './call.ts'
export type { CallOptions, Calls, ConnectOptions } from './connect.ts'
export { ContainerdClient } from './connect.ts'
export type { StatusCode } from './errors.ts'
export { ContainerdError, STATUS_CODE, statusName } from './errors.ts'
export type { Handlers, RawService, Service } from './handlers.ts'
export { service } from './handlers.ts'
export { Containers } from './proto/containers_pb.ts'
export { Content, WriteAction } from './proto/content_pb.ts'
export type { Descriptor as DescriptorMessage } from './proto/descriptor_pb.ts'
export { Diff } from './proto/diff_pb.ts'
export { Images } from './proto/images_pb.ts'
export { Leases } from './proto/leases_pb.ts'
export type { Mount as MountMessage } from './proto/mount_pb.ts'
export type { Info as SnapshotInfo } from './proto/snapshots_pb.ts'
export { Kind as SnapshotKindNumber, Snapshots } from './proto/snapshots_pb.ts'
export { Tasks } from './proto/tasks_pb.ts'
export { Version } from './proto/version_pb.ts'
export type { RunningServer, ServeOptions } from './serve.ts'
export { serve } from './serve.ts'
