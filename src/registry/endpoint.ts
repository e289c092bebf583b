import type { CredentialSource } from './credentials.ts'
import { RegistryError } from './errors.ts'
import { endpointHost, isLoopback } from './reference.ts'
import { speaksNoTls } from './wire-error.ts'

/** When plain HTTP is spoken: `localhost` and `fallback` try HTTPS first and switch when the other side speaks no TLS. */
export type PlainHttp = 'never' | 'localhost' | 'fallback' | 'always'

interface EndpointParts {
  readonly host: string
  readonly authority: string
  readonly prefix: string
  readonly scheme: 'http' | 'https'
  readonly decided: boolean
  readonly headers: Readonly<Record<string, string>>
  readonly credentials: CredentialSource
}

/** Who is asked: a registry or a mirror of it. */
export class Endpoint {
  /** As credentials are filed and people know it. */
  readonly host: string
  readonly headers: Readonly<Record<string, string>>
  readonly credentials: CredentialSource
  readonly #prefix: string
  readonly #authority: string
  #scheme: 'http' | 'https'
  /** False while HTTPS is only a first guess. */
  #decided: boolean
  known = false
  #first: PromiseWithResolvers<void> | undefined

  constructor(parts: EndpointParts) {
    this.host = parts.host
    this.headers = parts.headers
    this.credentials = parts.credentials
    this.#authority = parts.authority
    this.#prefix = parts.prefix
    this.#scheme = parts.scheme
    this.#decided = parts.decided
  }

  static registry(
    host: string,
    plainHttp: PlainHttp,
    shared: Pick<EndpointParts, 'headers' | 'credentials'>,
  ): Endpoint {
    const guess = plainHttp === 'fallback' || (plainHttp === 'localhost' && isLoopback(host))
    const scheme = plainHttp === 'always' ? 'http' : 'https'
    return new Endpoint({ ...shared, host, authority: endpointHost(host), prefix: '', scheme, decided: !guess })
  }

  /** From an URL with scheme, host, port and perhaps a path. Throws 'BAD_CONFIG'. */
  static at(text: string, shared: Pick<EndpointParts, 'headers' | 'credentials'>): Endpoint {
    const url = URL.parse(text)
    const scheme = url?.protocol === 'http:' ? 'http' : url?.protocol === 'https:' ? 'https' : undefined
    if (url === null || scheme === undefined || url.search !== '' || url.hash !== '' || url.username !== '') {
      throw new RegistryError(
        'BAD_CONFIG',
        'cannot use mirror: write it as http(s)://HOST[:PORT][/PATH], without user, query or fragment',
      )
    }
    return new Endpoint({
      ...shared,
      host: url.host,
      authority: url.host,
      prefix: url.pathname.replace(/\/+$/, ''),
      scheme,
      decided: true,
    })
  }

  get origin(): string {
    return `${this.#scheme}://${this.#authority}`
  }

  url(path: string): URL {
    return new URL(`${this.origin}${this.#prefix}${path}`)
  }

  /** HTTPS failed this way: true when plain HTTP is to be tried now. */
  fallsBack(error: unknown): boolean {
    if (this.#decided || this.#scheme === 'http' || !speaksNoTls(error)) return false
    this.#scheme = 'http'
    return true
  }

  /** Plain HTTP gave nothing either: the next request starts with HTTPS again. */
  forgetFallback(): void {
    if (!this.#decided) this.#scheme = 'https'
  }

  /** The first request runs alone: it learns scheme and challenge for all that wait. Resolves when it was answered, or failed; undefined when there is none. */
  get first(): Promise<void> | undefined {
    return this.#first?.promise
  }

  firstBegins(): void {
    this.#first = Promise.withResolvers()
  }

  firstEnds(): void {
    this.#first?.resolve()
    this.#first = undefined
  }

  answered(): void {
    this.#decided = true
    this.known = true
    this.firstEnds()
  }
}
