import type { RouteName } from './faults.ts'

export interface RouteCount {
  readonly requests: number
  readonly bytesIn: number
  readonly bytesOut: number
}

type MutableCount = { -readonly [key in keyof RouteCount]: RouteCount[key] }

const ROUTES: readonly RouteName[] = [
  'base',
  'blob',
  'upload',
  'manifest',
  'tags',
  'referrers',
  'catalog',
  'token',
  'other',
]

/** Requests and body bytes by kind of request. */
export class Counters {
  #counts = fresh()

  request(route: RouteName): void {
    this.#counts[route].requests += 1
  }

  received(route: RouteName, bytes: number): void {
    this.#counts[route].bytesIn += bytes
  }

  sent(route: RouteName, bytes: number): void {
    this.#counts[route].bytesOut += bytes
  }

  snapshot(): Readonly<Record<RouteName, RouteCount>> {
    return structuredClone(this.#counts)
  }

  reset(): void {
    this.#counts = fresh()
  }
}

function fresh(): Record<RouteName, MutableCount> {
  return Object.fromEntries(ROUTES.map((route) => [route, { requests: 0, bytesIn: 0, bytesOut: 0 }])) as Record<
    RouteName,
    MutableCount
  > // one for each name of the union
}
