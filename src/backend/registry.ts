import type {
  ClientOptions,
  CredentialSource,
  Mirror,
  PlainHttp,
  ProxyOptions,
  Reference,
  Repository,
} from '../registry/index.ts'
import {
  anonymous,
  fromBase64,
  fromRegistryToken,
  RegistryClient,
  RegistryError,
  sha256Digest,
} from '../registry/index.ts'
import type { Backend, BlobReader, ReadOptions } from './backend.ts'
import { abortedRead, BackendError, checkRange } from './errors.ts'
import { isHost } from './host.ts'
import { fromRegistry } from './registry-failure.ts'

/** What is left out has nydusd's default where it has one. */
export interface RegistryBackendOptions {
  /** With the port if there is one. */
  readonly host: string
  /** `library/node`. */
  readonly repo: string
  /** `https` unless it is exactly `http`; where none is said, a registry on this machine may speak plain HTTP. */
  readonly scheme?: string | undefined
  /** Base64 of `user:password`; blank = none. A function is asked again whenever the registry refuses a login, so that it may change. */
  readonly auth?: string | (() => string | undefined)
  /** Asked when `auth` gives nothing; default anonymous. */
  readonly otherLogin?: CredentialSource
  /** A bearer token, taken until the registry refuses it; then `auth` is. */
  readonly registryToken?: string
  /** A newer one, asked at each read: when it changes, it is taken until the registry refuses it. */
  readonly newToken?: () => string | undefined
  /** No certificate checks; plain HTTP where nobody speaks TLS. */
  readonly skipVerify?: boolean
  /** PEM text of certificates to trust beside the system's. */
  readonly ca?: string
  /** Without any sign of life (answer or bytes) a try ends; default 5,000, 0 = none. The reader's own signal is the deadline of a whole read. */
  readonly timeoutMs?: number
  /** Default 5,000; 0 = none. */
  readonly connectTimeoutMs?: number
  /** Retries after the first try; default 3. */
  readonly retryLimit?: number
  /** Wait before the first retry; default 100, doubling up to 5,000. */
  readonly retryBaseMs?: number
  /** Puts another scheme or host name into addresses that the registry redirects to. */
  readonly blobUrlScheme?: string
  readonly blobRedirectedHost?: string
  /** Asked before the registry, in order. */
  readonly mirrors?: readonly Mirror[]
  readonly connectionsPerHost?: number
  readonly userAgent?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly proxy?: ProxyOptions | undefined
}

const DEFAULT_TIMEOUT_MS = 5_000
const DEFAULT_RETRIES = 3

/**
 * Blobs of one repository of a registry, by ranges. Logins, redirects, mirrors and retries (Retry-After, resumed bodies) are the registry client's: its errors
 * come out with `attempts` set, so that `withRetry` around this adds nothing. Nothing is connected before the first read. Throws 'BAD_OPTION'.
 */
export function registryBackend(options: RegistryBackendOptions): Backend {
  if (!isHost(options.host))
    throw new BackendError('BAD_OPTION', `cannot use backend registry: ${JSON.stringify(options.host)} is no "host"`)
  try {
    return new RegistryBackend(options)
  } catch (error) {
    throw fromRegistry(error, `use backend registry ${options.host}/${options.repo}`, 1)
  }
}

class RegistryBackend implements Backend {
  readonly name = 'registry'
  readonly #options: RegistryBackendOptions
  readonly #attempts: number
  readonly #clients: RegistryClient[] = []
  readonly #readers = new Set<RegistryReader>()
  /** What the configuration said when it was looked at last. */
  #auth: string | undefined
  #newToken: string | undefined
  /** A registry token, '' = none. */
  #token: string
  readonly #login: CredentialSource | undefined
  /** The repository by token and by login, made when first needed, and the one of both that is in use. */
  #byToken: Repository | undefined
  #byLogin: Repository | undefined
  #repository: Repository
  #closed = false

  constructor(options: RegistryBackendOptions) {
    this.#options = options
    this.#auth = authOf(options)
    this.#newToken = options.newToken?.()
    this.#token = (this.#newToken ?? options.registryToken ?? '').trim()
    this.#login = loginOf(options)
    this.#attempts = 1 + (options.retryLimit ?? DEFAULT_RETRIES)
    this.#repository = this.#token === '' ? this.#withLogin() : this.#withToken()
  }

  async open(blobId: string): Promise<BlobReader> {
    if (this.#closed) throw new BackendError('CLOSED', `cannot open blob ${blobId}: the backend was closed`)
    if (!/^[0-9a-f]{64}$/.test(blobId))
      throw new BackendError(
        'BAD_OPTION',
        `cannot open blob ${JSON.stringify(blobId.slice(0, 300))} of ${this.#options.host}/${this.#options.repo}: a registry keeps blobs by 64 hex digits of SHA-256`,
      )
    const reader: RegistryReader = new RegistryReader({
      repository: () => this.#current(),
      refused: (used) => this.#refused(used),
      blobId,
      where: `${this.#options.host}/${this.#options.repo}`,
      attempts: this.#attempts,
      onClose: () => this.#readers.delete(reader),
    })
    this.#readers.add(reader)
    return reader
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#readers].map((reader) => reader.close()))
    await Promise.all(this.#clients.map((client) => client.close()))
  }

  /** A login that changed counts at once: what was learned with the old one is forgotten. */
  #current(): Repository {
    const auth = authOf(this.#options)
    if (auth !== this.#auth) {
      this.#auth = auth
      if (auth !== undefined) this.#refused(this.#repository) // a registry token stands back
      for (const client of this.#clients) client.forgetLogins()
    }
    const token = this.#options.newToken?.()
    if (token !== this.#newToken) {
      this.#newToken = token
      if (token === undefined)
        this.#refused(this.#repository) // what took its place counts
      else this.#takeToken(token)
    }
    return this.#repository
  }

  #takeToken(token: string): void {
    this.#token = token.trim()
    this.#repository = this.#withToken()
    for (const client of this.#clients) client.forgetLogins()
  }

  /** A repository refused its login: true when there is another to try. */
  #refused(used: Repository): boolean {
    if (used !== this.#repository) return true
    if (used !== this.#byToken || this.#login === undefined || this.#closed) return false
    this.#repository = this.#withLogin()
    return true
  }

  #withToken(): Repository {
    this.#byToken ??= this.#connect(async (host) => await fromRegistryToken(this.#token)(host))
    return this.#byToken
  }

  #withLogin(): Repository {
    this.#byLogin ??= this.#connect(this.#login ?? anonymous())
    return this.#byLogin
  }

  #connect(credentials: CredentialSource): Repository {
    const client = new RegistryClient(clientOptions(this.#options, credentials, this.#attempts))
    this.#clients.push(client)
    // Not parsed from text: a configuration's host may lack the dot that a reference's must have, and nothing is put before its "repo".
    const { host, repo: repository } = this.#options
    const reference: Reference = { host, repository, tag: undefined, digest: undefined }
    return client.repository(reference, { mirrors: this.#options.mirrors ?? [] })
  }
}

function clientOptions(
  options: RegistryBackendOptions,
  credentials: CredentialSource,
  attempts: number,
): ClientOptions {
  const { skipVerify = false, timeoutMs = DEFAULT_TIMEOUT_MS, connectTimeoutMs = DEFAULT_TIMEOUT_MS } = options
  return {
    credentials,
    plainHttp: plainHttpOf(options),
    skipVerify,
    connectTimeoutMs,
    headersTimeoutMs: timeoutMs,
    bodyTimeoutMs: timeoutMs,
    retry: { attempts, baseDelayMs: options.retryBaseMs ?? 100 },
    redirect: redirectOf(options),
    proxy: options.proxy,
    ...(options.ca === undefined ? {} : { ca: options.ca }),
    ...(options.connectionsPerHost === undefined ? {} : { connectionsPerHost: options.connectionsPerHost }),
    ...(options.userAgent === undefined ? {} : { userAgent: options.userAgent }),
    ...(options.headers === undefined ? {} : { headers: options.headers }),
  }
}

/** Nothing leaves a machine on its way to its own registry: as with containerd, that need not speak TLS, unless the scheme says so. */
function plainHttpOf({ scheme, skipVerify = false }: RegistryBackendOptions): PlainHttp {
  if (scheme === 'http') return 'always'
  if (skipVerify) return 'fallback'
  return scheme === undefined ? 'localhost' : 'never'
}

interface ReaderParts {
  readonly repository: () => Repository
  readonly refused: (used: Repository) => boolean
  readonly blobId: string
  readonly where: string
  readonly attempts: number
  readonly onClose: () => void
}

class RegistryReader implements BlobReader {
  readonly #parts: ReaderParts
  readonly #closing = new AbortController()
  readonly #running = new Set<Promise<unknown>>()
  #size: number | undefined

  constructor(parts: ReaderParts) {
    this.#parts = parts
  }

  async size(signal: AbortSignal): Promise<number> {
    const digest = sha256Digest(this.#parts.blobId)
    this.#size ??= await this.#run('find the size', signal, (repository, either) =>
      repository.blobSize(digest, { signal: either }),
    )
    return this.#size
  }

  async read(compressedOffset: number, into: Uint8Array, options: ReadOptions): Promise<void> {
    const { blobId, where } = this.#parts
    const what = `read ${into.length} bytes at ${compressedOffset}`
    checkRange(`${what} of blob ${blobId} of ${where}`, compressedOffset, into.length)
    let filled = 0
    await this.#run(what, options.signal, (repository, signal) => {
      const from = filled // of an earlier login
      const onFilled = (part: number): void => {
        filled = from + part
        options.onFilled?.(filled)
      }
      const rest = from === 0 ? into : into.subarray(from)
      const { purpose = 'demand', afterWrongBytes: fromSource = false } = options
      const how = { signal, onFilled, purpose, fromSource }
      return repository.readRange(sha256Digest(blobId), compressedOffset + from, rest, how)
    })
  }

  async close(): Promise<void> {
    this.#closing.abort(new BackendError('CLOSED', 'it was closed'))
    await Promise.allSettled(this.#running) // the readers are told; here only their end counts
    this.#parts.onClose()
  }

  async #run<T>(
    what: string,
    signal: AbortSignal,
    act: (repository: Repository, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { blobId, where, attempts, repository, refused } = this.#parts
    const named = `${what} of blob ${blobId} of ${where}`
    const either = AbortSignal.any([this.#closing.signal, signal])
    for (;;) {
      if (either.aborted) throw abortedRead(named, either)
      const used = repository()
      const running = act(used, either)
      this.#running.add(running)
      try {
        return await running
      } catch (error) {
        if (either.aborted) throw abortedRead(named, either)
        const again = error instanceof RegistryError && error.code === 'UNAUTHORIZED' && refused(used)
        if (!again) throw fromRegistry(error, named, attempts)
      } finally {
        this.#running.delete(running)
      }
    }
  }
}

/** The configured login as it is now; undefined when there is none. */
function authOf({ auth }: RegistryBackendOptions): string | undefined {
  const text = (typeof auth === 'function' ? auth() : auth)?.trim() ?? ''
  return text === '' ? undefined : text
}

/** Undefined when there is none. A broken one is told now, not at the first read of a mounted image. */
function loginOf({ auth, otherLogin }: RegistryBackendOptions): CredentialSource | undefined {
  if (typeof auth === 'function')
    return async (host) => {
      const text = auth()?.trim() ?? ''
      return text === '' ? (otherLogin ?? anonymous())(host) : fromBase64(text)(host)
    }
  return auth === undefined || auth.trim() === '' ? otherLogin : fromBase64(auth.trim())
}

function redirectOf(options: RegistryBackendOptions): { scheme?: 'http' | 'https'; host?: string } {
  const { blobUrlScheme = '', blobRedirectedHost = '' } = options
  if (blobUrlScheme !== '' && blobUrlScheme !== 'http' && blobUrlScheme !== 'https')
    throw new BackendError('BAD_OPTION', `"blob_url_scheme" is ${JSON.stringify(blobUrlScheme)}; give http or https`)
  return {
    ...(blobUrlScheme === '' ? {} : { scheme: blobUrlScheme }),
    ...(blobRedirectedHost === '' ? {} : { host: blobRedirectedHost }),
  }
}
