/** Error codes of the distribution specification, with the status that goes with each. */
const STATUS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 400,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  UNSUPPORTED: 405,
  TOOMANYREQUESTS: 429,
  TAG_INVALID: 400,
  UNKNOWN: 500,
} as const

export type SpecCode = keyof typeof STATUS

/** An answer that is an error, thrown by the routes of the embedded registry. */
export class SpecError extends Error {
  readonly code: SpecCode
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(
    code: SpecCode,
    message: string,
    options: { status?: number; headers?: Readonly<Record<string, string>>; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'SpecError'
    this.code = code
    this.status = options.status ?? STATUS[code]
    this.headers = options.headers ?? {}
  }

  /** Body as the specification wants it. */
  toBody(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message, detail: null }] })
  }
}
