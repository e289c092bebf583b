/** The services of nydusd for virtual machines and for other kernels' drivers: a door of its own, and a bundle, since a FUSE mount needs none of it. */
export type { ServiceOptions } from './run-service.ts'
export { type NbdRunOptions, runNbd } from './nbd.ts'
export { runSingleton, type SingletonRunOptions } from './singleton.ts'
export { runUffd, type UffdRunOptions } from './uffd.ts'
export { runVirtioFs, type VirtioFsRunOptions } from './virtiofs.ts'
