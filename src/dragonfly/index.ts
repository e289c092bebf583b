/**
 * The Dragonfly room: which seed peer of a Dragonfly cluster is asked for what. A scheduler names the peers (gRPC, cleartext), each is asked whether it is well, and a hash of what is fetched
 * chooses one, as the original's library does. The requests themselves are the registry room's.
 */
export { isSchedulerEndpoint } from './seed-hosts.ts'
export type { PeersShare } from './shared-peers.ts'
export { sharePeers } from './shared-peers.ts'
