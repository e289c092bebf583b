/** nydus-setup: configures a node for the snapshotter, and takes it back. */
export { applyPlan, type FileChange, planSetup, planUndo, RECORD, type SetupOptions, type SetupPlan } from './plan.ts'
export {
  DEFAULT_PLACES,
  NYDUSD_CONFIG,
  SERVICE,
  serviceUnit,
  snapshotterConfig,
} from './templates.ts'
export { unifiedDiff } from './unified-diff.ts'
export { hasReadConfiguration, START_PROPERTIES } from './containerd-start.ts'
