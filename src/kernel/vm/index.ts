/**
 * The part of the kernel room that serves virtual machines: descriptors over sockets, page faults and memory of other processes. A door of its own, since a plain mount needs none of it.
 */
export { FaultMemory, readMemory, whyNoFaults } from './fault-memory.ts'
export { addressOf, sealedFile } from './memory.ts'
export type { NbdRequest } from './nbd.ts'
export { NBD, NbdDevice, nbdReply, NbdRequests, whyNoNbd } from './nbd.ts'
export { connectStream, socketPair, UnixListener, UnixStream } from './unix-stream.ts'
export { UserFaults } from './userfault.ts'
