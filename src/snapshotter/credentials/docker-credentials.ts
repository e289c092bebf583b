import { type CredentialSource, type DockerConfigOptions, fromDockerConfig } from '../../registry/index.ts'
import { JoinedWork } from '../joined-work.ts'
import { PasswordCredential, TokenCredential } from './credential.ts'
import type { CredentialProvider, CredentialRequest, FoundCredential } from './provider.ts'

/** A helper that asks a person, or a network that is gone, must not hold a container for long. */
const HELPER_TIMEOUT_MS = 10_000

/**
 * Logins of the Docker client of the user that the snapshotter runs as, read anew at each question. Questions for one registry at the same time are
 * one question: a helper is a process. Identity tokens are passed over: nydusd cannot exchange them.
 */
export class DockerCredentials implements CredentialProvider {
  readonly name = 'docker'
  readonly isRenewable = true
  readonly #source: CredentialSource
  readonly #asked = new JoinedWork<Awaited<ReturnType<CredentialSource>>>()

  constructor(options: DockerConfigOptions = {}) {
    this.#source = fromDockerConfig({ helperTimeoutMs: HELPER_TIMEOUT_MS, ...options })
  }

  async find({ reference }: CredentialRequest, signal: AbortSignal): Promise<FoundCredential | undefined> {
    const { host } = reference
    // The helper has a deadline of its own and does not end with its callers.
    const found = await this.#asked.do(host, () => this.#source(host), signal)
    if (found.kind === 'registry-token') return { credential: new TokenCredential(found.token.reveal()) }
    if (found.kind !== 'basic' || found.username === '' || found.password.reveal() === '') return undefined
    return { credential: new PasswordCredential(found.username, found.password.reveal()) }
  }
}
