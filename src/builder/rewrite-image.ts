import type { BlobCipher } from '../blob/index.ts'
import type { CompressionName } from '../codec/index.ts'
import { type Bootstrap, type RafsFiles, walkBootstrap } from '../rafs/index.ts'
import { prefetchNodes } from './file-order.ts'
import { toKey } from './image-path.ts'
import { writeTree } from './write-tree.ts'

/** The image again, over other chunks and blobs; entries of the tree are not found by their names afterwards. */
export function rewriteImage(image: Bootstrap, tree: RafsFiles): Uint8Array {
  const { files, root } = tree
  const prefetch = prefetchNodes(files, root, prefetchPathsOf(image))
  files.closeIndex()
  return writeTree(tree, {
    version: image.version,
    chunkSize: image.chunkSize,
    compression: compressionFor(image),
    digest: image.blobs[0]?.digest ?? 'blake3',
    explicitOwners: image.explicitOwners,
    alwaysXattrs: image.hasXattrs,
    prefetch,
    source: 'archive',
  })
}

/** What new blobs of an image are compressed with: as its own are; gzip, which is not written, becomes zstd where blobs may differ. */
export function compressionFor({ version, blobs }: Pick<Bootstrap, 'version' | 'blobs'>): CompressionName {
  const found = blobs.find(({ compression }) => compression !== 'none')?.compression ?? blobs[0]?.compression ?? 'zstd'
  return found === 'gzip' && version === 6 ? 'zstd' : found
}

/** Data of an encrypted blob is never stored plain: the key of the first one serves for the new blob. */
export function cipherOf({ blobs }: Pick<Bootstrap, 'blobs'>): BlobCipher | undefined {
  return blobs.find(({ cipher }) => cipher !== undefined)?.cipher
}

/** Paths of an image's prefetch table, in its order: of an inode with several names the first. */
function prefetchPathsOf(image: Bootstrap): string[] {
  const inodes = image.prefetch()
  if (inodes.length === 0) return []
  const wanted = new Set(inodes)
  const paths = new Map<number, string>()
  for (const { path, ino } of walkBootstrap(image)) if (wanted.has(ino) && !paths.has(ino)) paths.set(ino, toKey(path))
  return inodes.map((ino) => paths.get(ino)).filter((path) => path !== undefined)
}
