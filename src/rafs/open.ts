import type { Bootstrap } from './bootstrap.ts'
import { ByteReader } from './byte-reader.ts'
import { RafsError } from './errors.ts'
import { BootstrapV5 } from './v5/reader.ts'
import { isV5 } from './v5/superblock.ts'
import { BootstrapV6 } from './v6/reader.ts'
import { isV6 } from './v6/superblock.ts'

/** What the bytes alone do not tell. */
export interface OpenOptions {
  /** The blob's real id, for a bootstrap that came out of its own blob and calls it `xxx…`; undefined leaves that name. */
  readonly inlinedBlobId: string | undefined
}

/**
 * Opens a bootstrap of RAFS v5 or v6 over its bytes, which must not change. Checks superblock and tables only: it costs the same for ten files and ten million.
 * Throws RafsError.
 */
export function openBootstrap(bytes: Uint8Array, options: OpenOptions = { inlinedBlobId: undefined }): Bootstrap {
  const from = new ByteReader(bytes)
  if (isV5(from)) return new BootstrapV5(from, options.inlinedBlobId)
  if (isV6(from)) return new BootstrapV6(from, options.inlinedBlobId)
  throw new RafsError(
    'NOT_RAFS',
    `${bytes.length} bytes that are no RAFS bootstrap (neither the magic of v5 nor that of v6); for a blob with its bootstrap inside, extract that first`,
  )
}
