import type { CredentialSource } from './credentials.ts'
import { RegistryError } from './errors.ts'
import { checkCertificates } from './certificates.ts'
import type { ProxyOptions } from './forward-proxy.ts'
import type { Mirror } from './mirrors.ts'
import { MirrorState } from './mirrors.ts'
import type { Reference } from './reference.ts'
import { RemoteRepository } from './remote-repository.ts'
import type { Repository } from './repository.ts'
import type { Clock, RetryPolicy } from './retry.ts'
import { DEFAULT_RETRY, SYSTEM_CLOCK } from './retry.ts'
import type { PlainHttp } from './endpoint.ts'
import { Endpoint } from './endpoint.ts'
import { Transport } from './transport.ts'

/** All optional parts have defaults that suit a public registry. */
export interface ClientOptions {
  readonly credentials: CredentialSource
  /** Default `localhost`, as containerd. */
  readonly plainHttp?: PlainHttp
  /** PEM text of certificates to trust beside the system's. */
  readonly ca?: string
  /** Default false. Switches certificate checks off. */
  readonly skipVerify?: boolean
  /** PEM texts by which the registry and its mirrors know this client. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined
  /** Connections to one host at once; default 32. */
  readonly connectionsPerHost?: number
  /** Default 10,000. */
  readonly connectTimeoutMs?: number
  /** Until the answer's headers; default 30,000. */
  readonly headersTimeoutMs?: number
  /** Between two pieces of a body; default 30,000. */
  readonly bodyTimeoutMs?: number
  /** What is left out: 5 attempts, 100 ms doubling up to 5 s, at most 60 s of Retry-After. */
  readonly retry?: Partial<RetryPolicy>
  readonly userAgent?: string
  /** Sent to the registry with every request. */
  readonly headers?: Readonly<Record<string, string>>
  /** Rewrites where redirects to other servers lead, for object stores that are reached by another name. */
  readonly redirect?: { readonly scheme?: 'http' | 'https'; readonly host?: string }
  readonly clock?: Clock
  /** On the way to blobs; logins, manifests and mirrors are asked without. */
  readonly proxy?: ProxyOptions | undefined
}

export interface RepositoryOptions {
  /** Tried in order before the registry itself for blob reads. */
  readonly mirrors?: readonly Mirror[]
}

/** Connections, logins and tokens, shared by all repositories opened with it. `close` ends what is under way and its sockets. */
export class RegistryClient {
  readonly #options: ClientOptions
  readonly #transport: Transport
  readonly #endpoints = new Map<string, Endpoint>()
  #closed = false

  /** Nothing is loaded or connected before the first request. Throws 'BAD_CONFIG' for a CA that is no certificate. */
  constructor(options: ClientOptions) {
    if (options.ca !== undefined) checkCertificates(options.ca)
    this.#options = options
    this.#transport = new Transport({
      http: {
        connectionsPerHost: options.connectionsPerHost ?? 32,
        connectTimeoutMs: options.connectTimeoutMs ?? 10_000,
        headersTimeoutMs: options.headersTimeoutMs ?? 30_000,
        bodyTimeoutMs: options.bodyTimeoutMs ?? 30_000,
        ca: options.ca,
        skipVerify: options.skipVerify ?? false,
        clientCertificate: options.clientCertificate,
        proxy: options.proxy,
        clock: options.clock ?? SYSTEM_CLOCK,
      },
      clock: options.clock ?? SYSTEM_CLOCK,
      retry: { ...DEFAULT_RETRY, ...options.retry },
      userAgent: options.userAgent ?? 'nydus-node',
      redirect: options.redirect ?? {},
    })
  }

  /** A repository of the registry in `reference`. Throws 'BAD_CONFIG' for a mirror that is no URL. */
  repository(reference: Reference, options: RepositoryOptions = {}): Repository {
    if (this.#closed) throw new RegistryError('CLOSED', 'cannot open a repository: the client was closed')
    const clock = this.#options.clock ?? SYSTEM_CLOCK
    const mirrors = (options.mirrors ?? []).map((mirror) => new MirrorState(mirror, clock))
    return new RemoteRepository({
      reference,
      transport: this.#transport,
      endpoint: this.#endpoint(reference.host),
      mirrors,
    })
  }

  /** The next requests ask for credentials and tokens anew; those under way go on with what they have. */
  forgetLogins(): void {
    this.#transport.forgetLogins()
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#transport.close()
  }

  #endpoint(host: string): Endpoint {
    let endpoint = this.#endpoints.get(host)
    if (endpoint === undefined) {
      const { plainHttp = 'localhost', headers = {}, credentials } = this.#options
      endpoint = Endpoint.registry(host, plainHttp, { headers, credentials })
      this.#endpoints.set(host, endpoint)
    }
    return endpoint
  }
}
