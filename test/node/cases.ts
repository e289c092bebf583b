import type { NodeCase } from './case.ts'
import { DEATH_CASES } from './cases/deaths.ts'
import { STATE_CASES } from './cases/given-back.ts'
import { POD_CASES } from './cases/pod.ts'

/** All of them, in the order in which they run. */
export const CASES: readonly NodeCase[] = [...POD_CASES, ...DEATH_CASES, ...STATE_CASES]
