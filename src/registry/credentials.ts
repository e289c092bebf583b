import { RegistryError } from './errors.ts'
import { Secret } from './secret.ts'

/** What to log in with at one registry. */
export type Credentials =
  | { readonly kind: 'anonymous' }
  | { readonly kind: 'basic'; readonly username: string; readonly password: Secret }
  /** A refresh token of an OAuth2 token server, as `docker login` stores for some registries. */
  | { readonly kind: 'identity-token'; readonly username: string; readonly token: Secret }
  /** A bearer token that the registry takes as it is. */
  | { readonly kind: 'registry-token'; readonly token: Secret }

/** Finds the credentials for a registry host (`docker.io`, `localhost:5000`). Asked again when a login is refused, so that it may have changed. */
export type CredentialSource = (host: string) => Promise<Credentials>

export const ANONYMOUS: Credentials = { kind: 'anonymous' }

/** Nobody, everywhere. */
export function anonymous(): CredentialSource {
  return async () => ANONYMOUS
}

/** The same user and password for every registry asked. */
export function fromPassword(username: string, password: string): CredentialSource {
  const credentials: Credentials = { kind: 'basic', username, password: new Secret(password) }
  return async () => credentials
}

/** From base64 of `user:password`, as in Nydus and Docker configurations. Throws RegistryError 'BAD_CONFIG'; the message does not show the text. */
export function fromBase64(auth: string): CredentialSource {
  const credentials = decodeBasic(auth)
  return async () => credentials
}

/** From a bearer token that the registry takes as it is. */
export function fromRegistryToken(token: string): CredentialSource {
  const credentials: Credentials = { kind: 'registry-token', token: new Secret(token.replace(/^bearer\s+/i, '')) }
  return async () => credentials
}

/** From a refresh token of the registry's token server. */
export function fromIdentityToken(username: string, token: string): CredentialSource {
  const credentials: Credentials = { kind: 'identity-token', username, token: new Secret(token) }
  return async () => credentials
}

/** `user:password` in base64, as Docker stores it (padding optional, a trailing NUL of old clients dropped); the password may have colons. Undefined when it is not that. */
export function splitBasic(auth: string): { readonly username: string; readonly password: string } | undefined {
  const text = auth.trim()
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(text)) return undefined
  const plain = Buffer.from(text, 'base64').toString('utf8')
  const colon = plain.indexOf(':')
  if (colon < 0) return undefined
  return { username: plain.slice(0, colon), password: plain.slice(colon + 1).replace(/\0+$/, '') }
}

/** The same as credentials, of a user with a name. Throws RegistryError 'BAD_CONFIG'. */
export function decodeBasic(auth: string): Credentials {
  const found = splitBasic(auth)
  if (found === undefined || found.username === '') throw unreadable('it is not base64 of "user:password"')
  return { kind: 'basic', username: found.username, password: new Secret(found.password) }
}

function unreadable(why: string): RegistryError {
  return new RegistryError(
    'BAD_CONFIG',
    `cannot use registry auth: ${why}; make it with: printf %s USER:PASSWORD | base64`,
  )
}
