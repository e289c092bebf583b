import type { CredentialSource } from './credentials.ts'

/** Where the Docker client keeps its logins, and how long a credential helper may take. */
export interface DockerConfigOptions {
  /** Folder of `config.json`; by default `$DOCKER_CONFIG`, else `~/.docker`. */
  readonly directory?: string
  /** Default 30,000. */
  readonly helperTimeoutMs?: number
  readonly env?: NodeJS.ProcessEnv
}

/**
 * Logins of the Docker client: `credHelpers`, then `credsStore`, then `auths` of `config.json`, as Docker itself looks them up. Read anew at
 * each question, so that `docker login` takes effect at once. No file means anonymous; a file that cannot be used is RegistryError 'BAD_CONFIG'.
 */
export function fromDockerConfig(_options: DockerConfigOptions = {}): CredentialSource {
  throw new Error('not yet')
}
