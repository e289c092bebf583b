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

interface Pending {
  readonly planned: PlannedFault
  left: number
}

/** Faults that still wait for their requests. */
export class FaultPlan {
  readonly #pending: Pending[] = []

  add(planned: PlannedFault): void {
    this.#pending.push({ planned, left: planned.times ?? 1 })
  }

  /** The first fault for this request, used up by one. */
  take(request: { readonly method: string; readonly route: RouteName; readonly url: string }): Fault | undefined {
    const index = this.#pending.findIndex(({ planned }) => matches(planned.match ?? {}, request))
    const pending = this.#pending[index]
    if (pending === undefined) return undefined
    pending.left -= 1
    if (pending.left <= 0) this.#pending.splice(index, 1)
    return pending.planned.fault
  }

  clear(): number {
    return this.#pending.splice(0).reduce((sum, { left }) => sum + left, 0)
  }
}

function matches(
  match: FaultMatch,
  request: { readonly method: string; readonly route: RouteName; readonly url: string },
): boolean {
  if (match.method !== undefined && match.method !== request.method) return false
  if (match.route !== undefined && match.route !== request.route) return false
  return match.url === undefined || match.url.test(request.url)
}
