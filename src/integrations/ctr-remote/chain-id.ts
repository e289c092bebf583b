import { type Digest, digestOf } from '../../registry/index.ts'

/** What a stack of layers, the lowest first, is called. Source: OCI image specification, config.md, "Layer ChainID". */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) {
    const below = chain.at(-1)
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)))
  }
  return chain
}
