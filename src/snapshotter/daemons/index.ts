/** nydusd processes and the images that they serve. */
export type { CollectedCache } from './cache-collector.ts'
export type { DaemonEvents } from './events.ts'
export type { CredentialLookup, MirrorLookup } from './image-config.ts'
export { type ImageRequest, referenceOf } from './image-request.ts'
export { Images, type ImagesParts, type MountedImage } from './images.ts'
export { mountState } from './mount-state.ts'
export type { DaemonLog, DaemonSettings } from './settings.ts'
export type { DaemonMetrics, DaemonStatus, InstanceStatus } from './status.ts'
