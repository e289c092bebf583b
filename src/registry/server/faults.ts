/** The kinds of request that the embedded registry tells apart, in counters and faults. */
export type RouteName = 'base' | 'blob' | 'upload' | 'manifest' | 'tags' | 'referrers' | 'catalog' | 'token' | 'other'

/** What to do wrong. Byte counts are of the response body. */
export type Fault =
  | {
      readonly kind: 'status'
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string
    }
  /** The connection dies before any answer. */
  | { readonly kind: 'reset' }
  /** The connection dies after this many bytes of the body. */
  | { readonly kind: 'cut'; readonly afterBytes: number }
  /** Nothing more comes after this many bytes; with `forMs` it goes on then. */
  | { readonly kind: 'stall'; readonly afterBytes: number; readonly forMs?: number }
  /** Content-Range and body are moved by this many bytes. */
  | { readonly kind: 'wrong-range'; readonly shiftBytes: number }
  /** A ranged request is answered 200 with everything. */
  | { readonly kind: 'ignore-range' }
  /** Content-Length is too large (the body then ends early) or too small by this many bytes. */
  | { readonly kind: 'wrong-length'; readonly deltaBytes: number }
  /** The byte at this place of the body is inverted. */
  | { readonly kind: 'wrong-bytes'; readonly at: number }
  /** Sent elsewhere; `{path}` in `to` stands for the path asked for. */
  | { readonly kind: 'redirect'; readonly to: string; readonly status?: 301 | 302 | 303 | 307 | 308 }

/** Which requests. What is left out matches all. */
export interface FaultMatch {
  readonly method?: string
  readonly route?: RouteName
  /** On path and query. */
  readonly url?: RegExp
}

export interface PlannedFault {
  readonly match?: FaultMatch
  /** How many matching requests; default 1. */
  readonly times?: number
  readonly fault: Fault
}
