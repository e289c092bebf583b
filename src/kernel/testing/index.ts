/** For tests of all rooms: the other end of what the kernel room sends. */
export { DatagramReceiver } from './datagram-receiver.ts'
export { Died, InterruptedCalls } from './interrupted-calls.ts'
