import type { FileRequest } from '../../kernel/index.ts'
import type { RequestNumber } from './files-in-hand.ts'

/** Top bit of the number of a request that is handed out again. Source: docs/formats/fuse-wire.md, RESEND. */
const RESENT = 0x8000_0000

/** Was it handed out before, to this process or another one? */
export function isResent({ uniqueHigh }: FileRequest): boolean {
  return uniqueHigh >= RESENT
}

/** The number of a request, the same however often it is handed out. */
export function numberOf({ uniqueLow, uniqueHigh }: FileRequest): RequestNumber {
  return { low: uniqueLow, high: uniqueHigh & ~RESENT }
}
