/** Readers with the faults that the fuzzer must see: for its own tests. */
import type { Target } from './target.ts'

class Refusal extends Error {}

const seeds = (): Array<{ bytes: Uint8Array; fields: number[] }> => [
  { bytes: new Uint8Array(64).fill(7), fields: [0, 4, 8, 12] },
]
let calls = 0
const kept: Uint8Array[] = []

/** The valid input is read as it should be; a damaged first word shows the fault. */
function faulty(fault: () => string): Target {
  const read = (bytes: Uint8Array): string => {
    if (bytes.length < 64) throw new Refusal('too short')
    return Buffer.from(bytes).readUInt32LE() === 0x0707_0707 ? 'fine' : fault()
  }
  return { seeds, read, refusals: [Refusal] }
}

export const TARGETS: Readonly<Record<string, Target>> = {
  sound: faulty(() => {
    throw new Refusal('refused')
  }),
  throws: faulty(() => {
    throw new TypeError('of undefined')
  }),
  hangs: faulty(() => {
    for (;;) calls++
  }),
  slow: faulty(() => {
    const end = performance.now() + 1100
    while (performance.now() < end) calls++
    return 'slow'
  }),
  greedy: faulty(() => {
    kept.push(new Uint8Array(80 * 2 ** 20))
    return 'greedy'
  }),
  moody: faulty(() => `call ${++calls}`),
}
