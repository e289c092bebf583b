/** Nydus forms of images that were pulled in their plain form: `Detector` finds them and fetches their bootstraps. */
export type { DetectorParts } from './detector.ts'
export { Detector } from './detector.ts'
export type { FoundBootstrap } from './found-bootstrap.ts'
export type { RegistryAccess } from './registry-access.ts'
export { registryAccess } from './registry-access.ts'
