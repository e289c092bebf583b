import { setTimeout as delay } from 'node:timers/promises'
import { SnapshotterError } from '../../errors.ts'
import type { Credential } from '../credential.ts'
import { bestPattern } from '../image-globs.ts'
import type { CredentialLog, CredentialProvider, CredentialRequest, FoundCredential } from '../provider.ts'
import { KubeApi } from './kube-api.ts'
import { type KubeConfigOptions, loadKubeAccess } from './kube-config.ts'
import { KubeLogin } from './kube-login.ts'
import { SecretWatch } from './secret-watch.ts'

export interface KubernetesOptions extends KubeConfigOptions {
  readonly log: CredentialLog
  readonly firstDelayMs?: number
  readonly mostDelayMs?: number
}

/** After a start, a first lookup waits for the secrets so long. */
const FIRST_LIST_MS = 10_000

/** Image pull secrets (`kubernetes.io/dockerconfigjson`) of all namespaces, from a watch of the API server. */
export class KubernetesCredentials implements CredentialProvider {
  readonly name = 'kubernetes'
  readonly isRenewable = true
  readonly #watch: SecretWatch

  private constructor(watch: SecretWatch) {
    this.#watch = watch
  }

  /** The API server need not be there yet. Throws SnapshotterError 'BAD_CONFIG'. */
  static async open(options: KubernetesOptions): Promise<KubernetesCredentials> {
    const { log, firstDelayMs = 1000, mostDelayMs = 30_000, env } = options
    const access = await loadKubeAccess(options)
    const api = new KubeApi(access, new KubeLogin(access, env))
    const watch = new SecretWatch({ api, log, firstDelayMs, mostDelayMs })
    watch.start()
    return new KubernetesCredentials(watch)
  }

  /** The most special pattern for the image counts; of equal ones that of the first secret by namespace and name. */
  async find({ reference }: CredentialRequest, signal: AbortSignal): Promise<FoundCredential | undefined> {
    await this.#ready(signal)
    const image = `${reference.host}/${reference.repository}`
    let best: { readonly pattern: string; readonly secret: string; readonly credential: Credential } | undefined
    for (const [secret, logins] of this.#watch.secrets) {
      const pattern = bestPattern(logins.keys(), image)
      const credential = pattern === undefined ? undefined : logins.get(pattern)
      if (pattern === undefined || credential === undefined) continue
      const isBetter =
        best === undefined || pattern > best.pattern || (pattern === best.pattern && secret < best.secret)
      if (isBetter) best = { pattern, secret, credential }
    }
    return best && { credential: best.credential }
  }

  async close(): Promise<void> {
    await this.#watch.close()
  }

  async #ready(signal: AbortSignal): Promise<void> {
    const ended = new AbortController()
    try {
      if (this.#watch.failure === undefined)
        await Promise.race([
          this.#watch.synced,
          delay(FIRST_LIST_MS, undefined, { signal: AbortSignal.any([signal, ended.signal]) }),
        ])
    } catch (error) {
      if (signal.aborted) throw error
      // It is in `failure`, unless the list came meanwhile.
    } finally {
      ended.abort()
    }
    const { failure } = this.#watch
    if (failure !== undefined) throw new SnapshotterError('UNAVAILABLE', failure.message, { cause: failure })
  }
}
