import type { BlobInfo } from '../blob/index.ts'
import type { CompressionName, DigestName } from '../codec/index.ts'
import { type NodeId, type RafsFiles, writeFilesV5, writeFilesV6 } from '../rafs/index.ts'
import { BuilderError } from './errors.ts'
import { readBack } from './readback.ts'

export interface TreeOptions {
  readonly version: 5 | 6
  readonly chunkSize: number
  readonly compression: CompressionName
  readonly digest: DigestName
  readonly explicitOwners: boolean
  /** v6: marked as having xattrs though no inode has. */
  readonly alwaysXattrs: boolean
  readonly prefetch: readonly NodeId[]
  /** v5 marks where files come from. */
  readonly source: 'archive' | 'directory'
  /** v6: its blobs are plain tars. */
  readonly isTarfs?: boolean
}

/** Writes a tree as a bootstrap, and reads it back. Throws BuilderError 'INCONSISTENT' when its blobs do not fit into one v5 image, 'READBACK'. */
export function writeTree(tree: RafsFiles, options: TreeOptions): Uint8Array {
  const bytes =
    options.version === 6
      ? writeFilesV6(tree, options)
      : writeFilesV5(tree, { ...options, compression: onlyCompression(tree.blobs, options) })
  readBack(bytes, tree)
  return bytes
}

/**
 * The compression that a v5 image tells for all its blobs. One whose chunks are stored plain fits any: chunks say for themselves whether they are compressed. The original writes other mixtures too, and cannot read them.
 */
function onlyCompression(blobs: readonly BlobInfo[], { compression, digest }: TreeOptions): CompressionName {
  const other = blobs.find((blob) => blob.digest !== digest)
  if (other !== undefined)
    throw new BuilderError(
      'INCONSISTENT',
      `Inconsistent RAFS Filesystem: blob ${other.id} is digested with ${other.digest}, the image with ${digest}; RAFS v5 has one for all blobs`,
    )
  const [found, second] = new Set(blobs.map((blob) => blob.compression).filter((name) => name !== 'none'))
  if (second !== undefined)
    throw new BuilderError(
      'INCONSISTENT',
      `Inconsistent RAFS Filesystem: blobs are compressed with ${found} and ${second}; RAFS v5 has one compression for all blobs, build the layers with the same one`,
    )
  return found ?? compression
}
