/**
 * The part of the kernel room that serves virtual machines: descriptors over sockets, page faults and memory of other processes. A door of its own, since a plain mount needs none of it.
 */
export type { CacheRequest } from './cachefiles.ts'
export { Cachefiles, parseCacheRequest } from './cachefiles.ts'
export { cachePlace } from './cachefiles-hash.ts'
export { CachefilesKernel } from './cachefiles-kernel.ts'
export { countEvent, eventCounter, FaultMemory, readMemory, sharedMemory, whyNoFaults } from './fault-memory.ts'
export { addressOf, sealedFile } from './memory.ts'
export type { NbdRequest } from './nbd.ts'
export { NBD, NbdDevice, nbdReply, NbdRequests, whyNoNbd } from './nbd.ts'
export { connectStream, socketPair, UnixListener, UnixStream } from './unix-stream.ts'
export { UserFaults } from './userfault.ts'
export { FuseQueue } from './vhost/fuse-queue.ts'
export { VhostSession } from './vhost/session.ts'
