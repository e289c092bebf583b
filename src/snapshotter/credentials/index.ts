/** Credentials for images: where they are looked for, how they are renewed. `Credentials` is what the snapshotter opens. */
export type { Credential } from './credential.ts'
export { PasswordCredential, TokenCredential } from './credential.ts'
export type { CredentialCounts, CredentialFinder, CredentialParts } from './credentials.ts'
export { Credentials } from './credentials.ts'
export { imageNameOf } from './image-name.ts'
export type { CredentialLog } from './provider.ts'
export type { ImagesInUse, RenewalCount } from './renewed-credentials.ts'
