import { SeedPeers } from './seed-peers.ts'

type Tell = (text: string) => void

/** A share in the peers of a scheduler; the last one to close it ends the questions. */
export interface PeersShare {
  readonly endpoint: string
  readonly peers: SeedPeers
  close(): void
}

interface Shared {
  readonly peers: SeedPeers
  readonly holders: Set<Tell>
}

/** By endpoint: all images of a process ask a scheduler once. */
const known = new Map<string, Shared>()

/** The peers of a scheduler. `tell` gets lines for the log, while no one who came before is there to get them. */
export function sharePeers(endpoint: string, tell: Tell): PeersShare {
  const holder: Tell = (text) => tell(text) // one for each share, though two may be given the same function
  let shared = known.get(endpoint)
  if (shared === undefined) {
    const holders = new Set([holder])
    const first = (text: string): void => [...holders][0]?.(text)
    shared = { peers: new SeedPeers(endpoint, first), holders }
    known.set(endpoint, shared)
  }
  const { peers, holders } = shared
  holders.add(holder)
  const close = (): void => {
    if (!holders.delete(holder) || holders.size > 0) return
    known.delete(endpoint)
    peers.close()
  }
  return { endpoint, peers, close }
}
