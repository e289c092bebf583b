import type { PlannedFault, RouteName } from './faults.ts'

/** Who may use the embedded registry. */
export type ServerAuth =
  | { readonly kind: 'basic'; readonly users: Readonly<Record<string, string>> }
  /** Tokens come from `/token` of the same server. */
  | {
      readonly kind: 'bearer'
      readonly users: Readonly<Record<string, string>>
      readonly tokenLifeMs: number
      readonly anonymousPull?: boolean
    }

export interface RegistryServerOptions {
  /** Folder of the store; made if absent. */
  readonly root: string
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** PEM texts; HTTPS when given. */
  readonly tls?: { readonly key: string; readonly cert: string }
  readonly auth?: ServerAuth
  /** Before each answer. */
  readonly latencyMs?: number
  /** Of all response and request bodies of a connection. */
  readonly bytesPerSecond?: number
}

export interface RouteCount {
  readonly requests: number
  readonly bytesIn: number
  readonly bytesOut: number
}

/** A running embedded registry. */
export interface RegistryServer {
  /** `http://127.0.0.1:5000`, no slash at the end. */
  readonly url: string
  /** `127.0.0.1:5000`: the host part of references. */
  readonly host: string
  readonly port: number
  /** May be changed at run time. */
  latencyMs: number
  bytesPerSecond: number | undefined
  /** The next matching requests go wrong, in the order of the calls. */
  fail(...faults: readonly PlannedFault[]): void
  /** Forgets faults that were not used; gives how many requests they still waited for. */
  clearFaults(): number
  /** Every bearer token given out so far is refused from now on. */
  expireTokens(): void
  counters(): Readonly<Record<RouteName, RouteCount>>
  resetCounters(): void
  close(): Promise<void>
}

/** Starts it; resolves when it listens. RegistryError 'BAD_CONFIG' when it cannot. */
export async function startRegistry(_options: RegistryServerOptions): Promise<RegistryServer> {
  throw new Error('not yet')
}
