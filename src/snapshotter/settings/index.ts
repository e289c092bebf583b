/** The configuration of containerd-nydus-grpc: defaults, a TOML file, flags. */
export { outlineToml, type Statement } from './outline.ts'
export { type Flags, parseSettings } from './parse.ts'
export { findProgram, readSettings } from './read.ts'
export { DAEMON_MODES, DEFAULT_CONTAINERD_ADDRESS, FS_DRIVERS, LOG_LEVELS } from './schema.ts'
export type { Settings } from './settings.ts'
export { goDuration, parseDuration, parseListenAddress } from './values.ts'
