/** The store: records of snapshots and their directories, and records of daemons. Nothing else writes below `snapshots/` or reads the database. */
export { measureUsage } from './disk-usage.ts'
export type { ExportedState } from './export-state.ts'
export { exportState } from './export-state.ts'
export type { StoredRecord } from './records.ts'
export { RecordTable } from './records.ts'
export { removeTree } from './remove-tree.ts'
export { SnapshotStore } from './snapshot-store.ts'
