/** The tar room: a pull parser that loses nothing and believes nothing, and a writer. Names, links and attributes are bytes. */
export type { ByteInput } from './byte-source.ts'
export type { SparseRun, TarEntry, TarLimits, TarType, TarXattr } from './entry.ts'
export { DEFAULT_LIMITS } from './entry.ts'
export type { TarErrorCode } from './errors.ts'
export { TarError } from './errors.ts'
export { TarReader } from './reader.ts'
export type { TarHeader, TarSink } from './writer.ts'
export { TarWriter } from './writer.ts'
