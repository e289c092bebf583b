/**
 * - `BAD_ENDPOINT`: the address of the scheduler is none.
 * - `UNREACHABLE`: no connection, or it broke.
 * - `TIMEOUT`: no answer in time.
 * - `REFUSED`: the other side answers that it will not.
 * - `BAD_RESPONSE`: the answer is not what gRPC or Dragonfly's messages allow, or larger than we take.
 * - `CLOSED`: nobody waits for it any more.
 */
export type DragonflyErrorCode = 'BAD_ENDPOINT' | 'UNREACHABLE' | 'TIMEOUT' | 'REFUSED' | 'BAD_RESPONSE' | 'CLOSED'

/** The one error class of this room. */
export class DragonflyError extends Error {
  override readonly name = 'DragonflyError'
  readonly code: DragonflyErrorCode

  constructor(code: DragonflyErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const MAX_DETAIL = 200

/** Of what comes from outside, one short line. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_DETAIL)
}
