/**
 * The integrations room: tools beside a snapshotter. ctr-remote's pulls, conversions and recordings over the services of a containerd. (nydus-overlayfs is a shell program, in `bin/`.)
 */
export type { RegistryAccess } from './ctr-remote/image-source.ts'
export { OpenedSource } from './ctr-remote/image-source.ts'
export type { LabelStyle } from './ctr-remote/layer-labels.ts'
export { pullImage } from './ctr-remote/pull-image.ts'
export type { PullRequest } from './ctr-remote/pull-image.ts'
export type { Recording } from './ctr-remote/record-reads.ts'
export { recordReads } from './ctr-remote/record-reads.ts'
export { Session } from './ctr-remote/session.ts'
export type { SessionOptions } from './ctr-remote/session.ts'
export { StoreRepository } from './ctr-remote/store-repository.ts'
export type { IntegrationErrorCode } from './errors.ts'
export { IntegrationError } from './errors.ts'
