/** The store: records of snapshots and their directories, and records of daemons. Nothing else writes below `snapshots/` or reads the database. */
export type { StoredRecord } from './records.ts'
export { RecordTable } from './records.ts'
export { SnapshotStore } from './snapshot-store.ts'
