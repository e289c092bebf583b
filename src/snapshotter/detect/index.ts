/**
 * What registries have beside plain layers: Nydus forms of images, which `Detector` finds and whose bootstraps it fetches, and tables of contents of eStargz layers (`StargzProbe`).
 */
export type { DetectorParts } from './detector.ts'
export { Detector } from './detector.ts'
export type { FoundBootstrap } from './found-bootstrap.ts'
export { plainLayer } from './plain-layer.ts'
export type { RegistryAccess } from './registry-access.ts'
export { registryAccess } from './registry-access.ts'
export type { StargzLayer } from './stargz-probe.ts'
export { StargzProbe } from './stargz-probe.ts'
export type { VisitParts } from './visit-repository.ts'
export { visitRepository } from './visit-repository.ts'
