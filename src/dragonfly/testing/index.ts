/** What tests of other rooms need of Dragonfly. */
export type { FakePeer, FakeScheduler, HostInit } from './cluster.ts'
export { startPeer, startScheduler } from './cluster.ts'
