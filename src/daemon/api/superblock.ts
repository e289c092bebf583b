import { superblockFields } from '../../rafs/index.ts'
import type { LoadedBootstrap } from '../bootstrap-file.ts'

/** Upstream keeps names and attributes for 2^32 seconds, and says so. */
const FOREVER = { secs: 2 ** 32, nanos: 0 } as const

/** `GET /api/v1/daemon/backend`: the superblock of an image, as upstream's clients read it. */
export function superblockJson({ bytes, bootstrap }: LoadedBootstrap): Record<string, unknown> {
  const { flags, ...fields } = superblockFields(bytes)
  return {
    ...fields,
    flags: { bits: flags },
    root_inode: bootstrap.version === 5 ? bootstrap.root : 0,
    batch_size: 0,
    attr_timeout: FOREVER,
    entry_timeout: FOREVER,
    is_chunk_dict: false,
  }
}
