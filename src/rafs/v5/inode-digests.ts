import { digester, type DigestName } from '../../codec/index.ts'
import type { FileTree, NodeId } from '../file-tree.ts'

export const DIGEST_SIZE = 32

/**
 * Digests of inodes: of a file over the digests of its chunks, of a directory over those of its children, of a symlink over its target, of anything else over
 * nothing. Names and attributes are not covered. Source: docs/formats/rafs-v5.md, "Inode".
 */
export class InodeDigests {
  readonly #files: FileTree
  readonly #hasher: ReturnType<typeof digester>
  readonly #nothing = new Uint8Array(DIGEST_SIZE)

  constructor(files: FileTree, name: DigestName) {
    this.#files = files
    this.#hasher = digester(name)
    this.#hasher.digest(new Uint8Array(0), this.#nothing)
  }

  /** Writes the digest of an entry. `digestOf` gives those of a directory's children, which must be known before. */
  write(id: NodeId, into: Uint8Array, digestOf: (child: NodeId) => Uint8Array): void {
    const files = this.#files
    const target = files.target(id)
    if (target !== undefined) this.#hasher.digest(target, into)
    else if (files.isDirectory(id)) this.#writeJoined(files.children(id).map(digestOf), into)
    else {
      const digests: Uint8Array[] = []
      for (let index = 0; index < files.chunkCount(id); index++)
        digests.push(files.chunks.at(files.chunk(id, index)).digest)
      this.#writeJoined(digests, into)
    }
  }

  #writeJoined(digests: readonly Uint8Array[], into: Uint8Array): void {
    if (digests.length === 0) {
      into.set(this.#nothing)
      return
    }
    const bytes = new Uint8Array(digests.length * DIGEST_SIZE)
    for (const [index, digest] of digests.entries()) bytes.set(digest, index * DIGEST_SIZE)
    this.#hasher.digest(bytes, into)
  }
}
