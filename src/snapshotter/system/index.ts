/** What the snapshotter tells of itself: the system API on a Unix socket, metrics and profiles on TCP addresses. */
export { Collector } from './collector.ts'
export { startController } from './controller.ts'
export type { RunningHttp } from './http-server.ts'
export { SnapshotterMetrics, type TimedOperation } from './metrics.ts'
export { startMetrics, startProfiles } from './pages.ts'
