/** The codes of gRPC; containerd compares nothing else. */
export const STATUS_CODE = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const

export type StatusCode = keyof typeof STATUS_CODE

const NAMES = new Map<number, StatusCode>(Object.entries(STATUS_CODE).map(([name, code]) => [code, name as StatusCode]))

/** The name of a code from the wire; what gRPC does not know is `UNKNOWN`. */
export function statusName(code: number): StatusCode {
  return NAMES.get(code) ?? 'UNKNOWN'
}

/**
 * The one error class of this room: a call that ended with a status other than OK, on either side. The codes are gRPC's. A socket that cannot be served or reached is
 * `UNAVAILABLE`, an address that cannot be one is `INVALID_ARGUMENT`.
 */
export class ContainerdError extends Error {
  override readonly name = 'ContainerdError'
  readonly code: StatusCode

  constructor(code: StatusCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
