/**
 * The part of the kernel room that serves virtual machines: descriptors over sockets, page faults and memory of other processes. A door of its own, since a plain mount needs none of it.
 */
export { FaultMemory, readMemory, whyNoFaults } from './fault-memory.ts'
export { addressOf, sealedFile } from './memory.ts'
export { connectStream, UnixListener, UnixStream } from './unix-stream.ts'
export { UserFaults } from './userfault.ts'
