import {
  type BlobStreamOptions,
  type CredentialSource,
  type Digest,
  type Manifest,
  type ManifestOptions,
  type Reference,
  RegistryClient,
  RegistryError,
  type Repository,
} from '../../registry/index.ts'
import { type RegistryHost, readHosts } from './hosts.ts'

/** What is needed of a registry to pull an image. */
export type ImageSource = Pick<Repository, 'reference' | 'manifest' | 'blobStream'>

/** How registries are reached. */
export interface RegistryAccess {
  readonly credentials: CredentialSource
  readonly plainHttp: boolean
  readonly skipVerify: boolean
  /** PEM text. */
  readonly ca: string | undefined
  readonly clientCertificate: { readonly cert: string; readonly key: string } | undefined
  /** Folder with a `hosts.toml` for each registry. */
  readonly hostsDirectory: string | undefined
}

/** The registry of an image, or the hosts that `hosts.toml` names for it: each is asked until one has what is wanted. */
export class OpenedSource implements ImageSource, AsyncDisposable {
  readonly reference: Reference
  readonly #places: ReadonlyArray<{
    readonly repository: Repository
    readonly capabilities: RegistryHost['capabilities']
  }>
  readonly #clients: readonly RegistryClient[]

  /** Nothing is asked yet. Throws 'BAD_OPTION', RegistryError 'BAD_CONFIG'. */
  constructor(reference: Reference, access: RegistryAccess) {
    const hosts =
      (access.hostsDirectory === undefined ? undefined : readHosts(access.hostsDirectory, reference.host)) ?? []
    this.reference = reference
    const opened = hosts.length === 0 ? [plain(reference, access)] : hosts.map((host) => open(reference, access, host))
    this.#places = opened
    this.#clients = opened.map(({ client }) => client)
  }

  /** Whoever may resolve names is asked for tags; any host for what a digest names. */
  async manifest(ref: string, options: ManifestOptions = {}): Promise<Manifest> {
    const isName = !ref.includes(':')
    const wanted = isName ? 'resolve' : 'pull'
    return await this.#first(wanted, (repository) => repository.manifest(ref, options))
  }

  async *blobStream(digest: Digest, options: BlobStreamOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { stream, first } = await this.#first('pull', async (repository) => {
      const opened = repository.blobStream(digest, options)
      return { stream: opened, first: await opened.next() }
    })
    if (first.done === true) return
    yield first.value
    yield* stream
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()))
  }

  async #first<Result>(
    capability: 'pull' | 'resolve',
    ask: (repository: Repository) => Promise<Result>,
  ): Promise<Result> {
    let last: unknown
    for (const { repository, capabilities } of this.#places) {
      if (!capabilities.has(capability)) continue
      try {
        return await ask(repository)
      } catch (error) {
        if (!(error instanceof RegistryError) || error.code === 'ABORTED') throw error
        last = error
      }
    }
    throw last ?? new RegistryError('NOT_FOUND', `no host of hosts.toml has the capability "${capability}"`)
  }
}

const EVERYTHING: RegistryHost['capabilities'] = new Set(['pull', 'resolve'])

interface Place {
  readonly client: RegistryClient
  readonly repository: Repository
  readonly capabilities: RegistryHost['capabilities']
}

function plain(reference: Reference, access: RegistryAccess): Place {
  const { credentials, skipVerify, ca, clientCertificate } = access
  const client = new RegistryClient({
    credentials,
    plainHttp: access.plainHttp ? 'always' : 'localhost',
    skipVerify,
    ...(ca === undefined ? {} : { ca }),
    clientCertificate,
  })
  return { client, repository: client.repository(reference), capabilities: EVERYTHING }
}

function open(reference: Reference, access: RegistryAccess, host: RegistryHost): Place {
  const ca = host.ca ?? access.ca
  const client = new RegistryClient({
    credentials: access.credentials,
    plainHttp: host.scheme === 'http' ? 'always' : 'never',
    skipVerify: host.skipVerify || access.skipVerify,
    ...(ca === undefined ? {} : { ca }),
    clientCertificate: host.clientCertificate ?? access.clientCertificate,
    headers: host.headers,
  })
  return {
    client,
    repository: client.repository({ ...reference, host: host.host }),
    capabilities: host.capabilities,
  }
}
