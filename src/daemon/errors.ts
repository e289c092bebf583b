/**
 * `BAD_CONFIG`: a document or option that cannot be used. `UNSUPPORTED`: valid, but not in this version. `BAD_STATE`: not now. `BAD_REQUEST`: an API call that is
 * malformed. `EXISTS`, `NOT_FOUND`: of mounts. `BAD_IMAGE`: the bootstrap cannot be read or is damaged. `TOO_MANY`: no mount slot is free. `BUSY`: the mount point or
 * the API socket belongs to somebody else. `IO`: the operating system refused. `NOT_READY`: the session has not begun. `HANDOVER`: the supervisor, or what another daemon left,
 * cannot be used.
 */
export type DaemonErrorCode =
  | 'BAD_CONFIG'
  | 'UNSUPPORTED'
  | 'BAD_STATE'
  | 'BAD_REQUEST'
  | 'EXISTS'
  | 'NOT_FOUND'
  | 'BAD_IMAGE'
  | 'TOO_MANY'
  | 'BUSY'
  | 'IO'
  | 'NOT_READY'
  | 'HANDOVER'

export interface DaemonErrorOptions extends ErrorOptions {
  /** What upstream's API says in this place, where clients compare the text; the message itself is for people and logs. */
  readonly wire?: string
}

/** The one error class of this room. */
export class DaemonError extends Error {
  override readonly name = 'DaemonError'
  readonly code: DaemonErrorCode
  readonly wire: string | undefined

  constructor(code: DaemonErrorCode, message: string, options: DaemonErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.code = code
    this.wire = options.wire
  }
}

/** The message of whatever was thrown, with its causes. */
export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause =
    error.cause instanceof Error && !error.message.includes(error.cause.message) ? messageOf(error.cause) : ''
  return cause === '' ? error.message : `${error.message}: ${cause}`
}
