import { SnapshotterError } from '../errors.ts'
import type { Labels } from '../snapshot.ts'
import type { Credential } from './credential.ts'
import { imageName, parsedReference } from './image-name.ts'
import type { CredentialLog, CredentialProvider, CredentialRequest, FoundCredential } from './provider.ts'

/** Asks providers in order; the first that has one wins. What goes wrong with one is logged, and the next is asked. */
export class ProviderChain {
  readonly #providers: readonly CredentialProvider[]
  readonly #log: CredentialLog

  constructor(providers: readonly CredentialProvider[], log: CredentialLog) {
    this.#providers = providers
    this.#log = log
  }

  /**
   * `reference` is of an image, from a label or request. Undefined when no provider has any, or the text is no reference: the registry is then asked
   * anonymously. Rejects only when `signal` says that nobody waits.
   */
  async find(
    reference: string,
    labels: Labels,
    validUntilMs: number,
    signal: AbortSignal,
  ): Promise<Origin | undefined> {
    const parsed = parsedReference(reference)
    if (parsed === undefined) {
      this.#log.warn(`no credentials are looked for: ${JSON.stringify(reference.slice(0, 300))} is no image reference`)
      return undefined
    }
    const image = imageName(parsed)
    const request: CredentialRequest = { reference: parsed, image, labels, validUntilMs }
    for (const provider of this.#providers) {
      const found = await this.#ask(provider, request, signal)
      if (found === undefined) continue
      this.#log.debug(`credentials for ${image} are from ${provider.name}`)
      return { ...found, provider }
    }
    return undefined
  }

  async #ask(
    provider: CredentialProvider,
    request: CredentialRequest,
    signal: AbortSignal,
  ): Promise<FoundCredential | undefined> {
    if (signal.aborted)
      throw new SnapshotterError('CANCELLED', `nobody waits for credentials for ${request.image} any more`)
    try {
      return await provider.find(request, signal)
    } catch (error) {
      if (signal.aborted) throw error
      this.#log.warn(`no credentials for ${request.image} from ${provider.name}: ${(error as Error).message}`)
      return undefined
    }
  }
}

/** A credential and who gave it. */
export interface Origin {
  readonly credential: Credential
  readonly expiresAtMs?: number
  readonly provider: CredentialProvider
}
