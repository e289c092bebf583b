import { digester, type DigestName } from '../../codec/index.ts'
import { RafsError } from '../errors.ts'
import { type RafsNode, targetOf } from '../tree.ts'

const DIGEST_SIZE = 32

export interface InodeDigests {
  of(node: RafsNode): Uint8Array
}

/**
 * Digests of all inodes: of a file over the digests of its chunks, of a directory over those of its children, of a symlink over its target, of anything
 * else over nothing. Names and attributes are not covered. Source: docs/formats/rafs-v5.md, "Inode".
 */
export function inodeDigests(root: RafsNode, name: DigestName): InodeDigests {
  const found = new Map<RafsNode, Uint8Array>()
  const hasher = digester(name)
  const digest = (of: Uint8Array): Uint8Array => {
    const into = new Uint8Array(DIGEST_SIZE)
    hasher.digest(of, into)
    return into
  }
  const nothing = digest(new Uint8Array(0))
  const of = (node: RafsNode): Uint8Array => {
    const known = found.get(node)
    if (known === undefined) throw new RafsError('NOT_FOUND', 'a node is not in the tree that is written')
    return known
  }
  // Parents come before their children in this list, so from its end every child is known before its parent.
  const nodes = [root]
  for (let at = 0; at < nodes.length; at += 1) for (const child of nodes[at].children ?? []) nodes.push(child)
  for (const node of nodes.reverse()) {
    if (node.children !== undefined)
      found.set(node, node.children.length === 0 ? nothing : digest(joined(node.children.map(of))))
    else if (node.target !== undefined) found.set(node, digest(targetOf(node)))
    else found.set(node, node.chunks.length === 0 ? nothing : digest(joined(node.chunks.map((chunk) => chunk.digest))))
  }
  return { of }
}

function joined(digests: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(digests.length * DIGEST_SIZE)
  for (const [index, digest] of digests.entries()) bytes.set(digest, index * DIGEST_SIZE)
  return bytes
}
