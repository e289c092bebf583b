import type { FuseNode } from '../kernel/index.ts'
import type { MountedImage } from './image.ts'
import type { PseudoNode } from './pseudo-tree.ts'

/** A name in a directory, which the kernel may know. */
export interface KernelName {
  readonly parent: FuseNode
  readonly name: Uint8Array
}

const ROOT: FuseNode = { node: 1, top: 0 }

/**
 * What the kernel has to forget when what is mounted at the end of `way` changes. It keeps names for ever, also that there is none: those on the way go, with everything
 * below them; and, since the session's root cannot be forgotten, all names in it where what is mounted is that (`way` is empty, or the root alone): `inRoot`,
 * those of the image, and those of `nodes`, the directories above the mounts.
 */
export function staleNames(
  way: readonly PseudoNode[],
  inRoot: readonly Uint8Array[],
  nodes: readonly PseudoNode[],
): KernelName[] {
  const names = way.filter(({ name }) => name !== '').map(nameOf)
  const isRoot = way.length === 0 || way.some(({ name, slot }) => name === '' && slot !== 0)
  if (!isRoot || names.length > 0) return names
  for (const name of inRoot) names.push({ parent: ROOT, name: Buffer.from(name) })
  for (const node of nodes) if (node.parent === ROOT.node && node.name !== '') names.push(nameOf(node))
  return names
}

/** Names that the kernel may know in the session's root when the image's is that. */
export function rootNames({ loaded: { bootstrap } }: MountedImage): Uint8Array[] {
  const names: Uint8Array[] = []
  bootstrap.list(bootstrap.root, 0, (name) => {
    names.push(Buffer.from(name))
    return true
  })
  return names
}

function nameOf({ parent, name }: PseudoNode): KernelName {
  return { parent: { node: parent, top: 0 }, name: Buffer.from(name) }
}
