/** The login of a mount's registry that the API set while the mount is used; undefined = none was set. */
export interface LiveLogin {
  /** Base64 of `user:password`. */
  auth(): string | undefined
  /** A bearer token that the registry takes as it is. */
  token(): string | undefined
}

/** For mounts that no API reaches. */
export const FIXED_LOGIN: LiveLogin = { auth: () => undefined, token: () => undefined }

const AUTH_KEY = 'registry_auth'
const TOKEN_KEY = 'registry_token'
/** Of printable characters: what a header can carry. */
const TOKEN = /^[\x20-\x7e]{0,65536}$/

/** The settings that are logins. */
export const LOGIN_KEYS: readonly string[] = [AUTH_KEY, TOKEN_KEY]

/** The mount's part of the dynamic settings. */
export function liveLogin(path: string, dynamic: ReadonlyMap<string, string>): LiveLogin {
  return {
    auth: () => dynamic.get(`${path}:${AUTH_KEY}`) || undefined,
    token: () => dynamic.get(`${path}:${TOKEN_KEY}`) || undefined,
  }
}

/** The setting that another one of the same mount takes the place of: there is one login, the last. */
export function replacedLogin(key: string): string | undefined {
  return key === AUTH_KEY ? TOKEN_KEY : key === TOKEN_KEY ? AUTH_KEY : undefined
}

/** Whether a setting can be used as it is. */
export function isLoginUsable(key: string, value: string): boolean {
  return key !== TOKEN_KEY || TOKEN.test(value)
}
