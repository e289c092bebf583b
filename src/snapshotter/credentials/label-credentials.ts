import { PULL_SECRET, PULL_USERNAME } from '../labels.ts'
import { credentialOf } from './credential.ts'
import type { CredentialProvider, CredentialRequest, FoundCredential } from './provider.ts'

/** What a client wrote into the snapshot's labels. */
export class LabelCredentials implements CredentialProvider {
  readonly name = 'labels'
  readonly isRenewable = false

  async find({ labels }: CredentialRequest): Promise<FoundCredential | undefined> {
    const username = labels.get(PULL_USERNAME) ?? ''
    const credential = username === '' ? undefined : credentialOf(username, labels.get(PULL_SECRET) ?? '')
    return credential && { credential }
  }
}
