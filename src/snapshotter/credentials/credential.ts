import { splitBasic } from '../../registry/index.ts'

/** A user of a registry with a password. Neither printing nor JSON shows the password. */
export class PasswordCredential {
  readonly username: string
  readonly #password: string

  constructor(username: string, password: string) {
    this.username = username
    this.#password = password
  }

  get password(): string {
    return this.#password
  }
}

/** A bearer token that the registry takes as it is. Neither printing nor JSON shows it. */
export class TokenCredential {
  readonly #token: string

  constructor(token: string) {
    this.#token = token
  }

  get token(): string {
    return this.#token
  }
}

/** What to log in with for one image. */
export type Credential = PasswordCredential | TokenCredential

/** As upstream and the kubelet give it: an empty user name says that the password is a token. Undefined when there is nothing to log in with. */
export function credentialOf(username: string, password: string): Credential | undefined {
  if (password === '') return undefined
  return username === '' ? new TokenCredential(password) : new PasswordCredential(username, password)
}

/** From base64 of `user:password`. Undefined when it is not that: who calls says of what, without the text. */
export function credentialOfBase64(auth: string): Credential | undefined {
  const found = splitBasic(auth)
  return found && credentialOf(found.username, found.password)
}

export function sameCredential(a: Credential, b: Credential): boolean {
  if (a instanceof TokenCredential) return b instanceof TokenCredential && a.token === b.token
  return b instanceof PasswordCredential && a.username === b.username && a.password === b.password
}

/** As `credentialOf` takes it: for private files only. */
export function fieldsOf(credential: Credential): { readonly username: string; readonly password: string } {
  return credential instanceof TokenCredential
    ? { username: '', password: credential.token }
    : { username: credential.username, password: credential.password }
}
