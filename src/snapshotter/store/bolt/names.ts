/** Buckets and keys of the original's databases. Source: docs/formats/bolt.md, "metadata.db" and "nydus.db". */
export const VERSION_BUCKET = 'v1'
export const SNAPSHOTS = 'snapshots'
export const PARENTS = 'parents'
export const SNAPSHOT = {
  id: 'id',
  parent: 'parent',
  kind: 'kind',
  inodes: 'inodes',
  bytes: 'size',
  createdAt: 'createdat',
  updatedAt: 'updatedat',
  labels: 'labels',
} as const
export const DAEMONS = 'daemons'
export const INSTANCES = 'instances'
export const VERSION_KEY = 'version'
/** Of nydus.db. */
export const CURRENT_VERSION = 'v1.1'
