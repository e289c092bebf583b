import type { RafsFiles } from '../rafs/index.ts'
import { prefetchNodes } from './file-order.ts'
import type { LayerOptions } from './layer-options.ts'
import { type TreeOptions, writeTree } from './write-tree.ts'

/** What a layer's bootstrap takes from its options, and what follows from where its data lies. */
export type LayerBootstrapOptions = Pick<LayerOptions, 'chunkSize' | 'keepOwners' | 'prefetch'> &
  Pick<TreeOptions, 'version' | 'compression' | 'digest' | 'source' | 'isTarfs'>

/** Writes the bootstrap of a layer. Nothing can be found in the tree by name afterwards: that memory is let go first. */
export function layerBootstrap(tree: RafsFiles, options: LayerBootstrapOptions): Uint8Array {
  const { keepOwners, prefetch, ...more } = options
  const nodes = prefetch.policy === 'fs' ? prefetchNodes(tree.files, tree.root, prefetch.paths) : []
  tree.files.closeIndex()
  return writeTree(tree, { ...more, explicitOwners: keepOwners, alwaysXattrs: false, prefetch: nodes })
}
