import type { CredentialSource } from './credentials.ts'
import type { Mirror } from './mirrors.ts'
import type { Reference } from './reference.ts'
import type { Repository } from './repository.ts'
import type { Clock, RetryPolicy } from './retry.ts'

/** When plain HTTP is spoken: `localhost` and `fallback` try HTTPS first and switch when the other side speaks no TLS. */
export type PlainHttp = 'never' | 'localhost' | 'fallback' | 'always'

/** All optional parts have defaults that suit a public registry. */
export interface ClientOptions {
  readonly credentials: CredentialSource
  /** Default `localhost`, as containerd. */
  readonly plainHttp?: PlainHttp
  /** PEM text of certificates to trust beside the system's. */
  readonly ca?: string
  /** Default false. Switches certificate checks off. */
  readonly skipVerify?: boolean
  /** Connections to one host at once; default 32. */
  readonly connectionsPerHost?: number
  /** Default 10,000. */
  readonly connectTimeoutMs?: number
  /** Until the answer's headers; default 30,000. */
  readonly headersTimeoutMs?: number
  /** Between two pieces of a body; default 30,000. */
  readonly bodyTimeoutMs?: number
  readonly retry?: Partial<RetryPolicy>
  readonly userAgent?: string
  /** Sent to the registry and its mirrors with every request. */
  readonly headers?: Readonly<Record<string, string>>
  /** Rewrites where blob redirects lead to, for object stores that are reached by another name. */
  readonly redirect?: { readonly scheme?: 'http' | 'https'; readonly host?: string }
  readonly clock?: Clock
}

export interface RepositoryOptions {
  /** Tried in order before the registry itself for blob reads. */
  readonly mirrors?: readonly Mirror[]
}

/** Connections, logins and tokens, shared by all repositories opened with it. `close` ends what is under way and its sockets. */
export class RegistryClient {
  constructor(_options: ClientOptions) {}

  repository(_reference: Reference, _options: RepositoryOptions = {}): Repository {
    throw new Error('not yet')
  }

  async close(): Promise<void> {}
}
