import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** A set of tools to measure: ours, or the originals. */
export interface Tools {
  readonly name: 'ours' | 'peer'
  readonly nydusd: string
  readonly nydusImage: string
  /** Options that only the original needs: it wants a million descriptors, which a container may not give. */
  readonly daemonArgs: readonly string[]
}

const BIN = join(import.meta.dirname, '../bin')

export const OURS: Tools = {
  name: 'ours',
  nydusd: join(BIN, 'nydusd'),
  nydusImage: join(BIN, 'nydus-image'),
  daemonArgs: [],
}

/** The original tools, from the folder that `NYDUS_PEER_DIR` names; undefined when it is not set. Throws when it is set and they are not there. */
export function peerTools(): Tools | undefined {
  const folder = process.env['NYDUS_PEER_DIR']
  if (folder === undefined || folder === '') return undefined
  const tools: Tools = {
    name: 'peer',
    nydusd: join(folder, 'nydusd'),
    nydusImage: join(folder, 'nydus-image'),
    daemonArgs: ['--rlimit-nofile', '0'],
  }
  for (const tool of [tools.nydusd, tools.nydusImage])
    if (!existsSync(tool)) throw new Error(`NYDUS_PEER_DIR=${folder} has no ${tool.split('/').at(-1)}`)
  return tools
}
