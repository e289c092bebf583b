/** The log of containerd-nydus-grpc: readable lines, in a file that is put aside by size, or on stdout. */
export { type Log, SnapshotterLog } from './log.ts'
