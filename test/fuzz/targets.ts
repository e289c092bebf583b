import { ARCHIVES } from './archives.ts'
import { BLOB_PARTS } from './blob-parts.ts'
import { BOOTSTRAPS } from './bootstraps.ts'
import { DATABASES } from './chunk-database.ts'
import { DISKS } from './disks.ts'
import { OVER_LAYERS } from './over-layers.ts'
import { SNAPSHOT_STORE } from './snapshot-store.ts'
import type { Target } from './target.ts'

/** By name, in the order in which they run. */
export const TARGETS: Readonly<Record<string, Target>> = {
  ...BOOTSTRAPS,
  ...BLOB_PARTS,
  ...ARCHIVES,
  ...OVER_LAYERS,
  ...DATABASES,
  ...DISKS,
  ...SNAPSHOT_STORE,
}
