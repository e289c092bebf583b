import type { Reference } from '../../registry/index.ts'
import type { Labels } from '../snapshot.ts'
import type { Credential } from './credential.ts'

/** For which image credentials are wanted. */
export interface CredentialRequest {
  readonly reference: Reference
  /** The reference in its one form, see `imageName`. */
  readonly image: string
  readonly labels: Labels
  /** Milliseconds since 1970: what expires before is fetched anew where that can be. */
  readonly validUntilMs: number
}

export interface FoundCredential {
  readonly credential: Credential
  /** Milliseconds since 1970, where the provider knows. */
  readonly expiresAtMs?: number
}

/** One place where credentials may be. Any number of questions at once. Messages of what it throws hold no secrets. */
export interface CredentialProvider {
  readonly name: 'labels' | 'cri' | 'docker' | 'kubelet' | 'kubernetes'
  /** Whether asking later, without labels, may give newer ones. */
  readonly isRenewable: boolean
  /** Undefined when it has none for the image. */
  find(request: CredentialRequest, signal: AbortSignal): Promise<FoundCredential | undefined>
}

/** Lines for the log; none holds a secret. */
export interface CredentialLog {
  debug(line: string): void
  info(line: string): void
  warn(line: string): void
}
