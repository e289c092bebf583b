/** The daemon room: nydusd's configuration, mounts, FUSE transport, HTTP API and metrics. */
export type { DaemonErrorCode } from './errors.ts'
export { DaemonError } from './errors.ts'
export { FAILOVER_POLICIES, type FailoverPolicy } from './handover/drain.ts'
export { LOG_LEVELS, type LogLevel } from './log.ts'
export type { RunOptions } from './run.ts'
export { runDaemon } from './run.ts'
export { versionInfo } from './version/index.ts'
