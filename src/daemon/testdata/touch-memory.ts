/** A thread that reads memory whose pages come from somebody else: `{address, length}` in, the bytes out. */
import { parentPort } from 'node:worker_threads'
import { readMemory } from '../../kernel/vm/index.ts'

parentPort?.on('message', ({ address, length }: { address: number; length: number }) => {
  parentPort?.postMessage(Uint8Array.from(readMemory(address, length)))
})
