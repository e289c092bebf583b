import { stat } from 'node:fs/promises'
import { SnapshotterError } from '../../errors.ts'
import type { Credential } from '../credential.ts'
import { bestPattern } from '../image-globs.ts'
import type { CredentialLog, CredentialProvider, CredentialRequest, FoundCredential } from '../provider.ts'
import { KubeletPlugin } from './kubelet-plugin.ts'
import { readPluginConfig } from './plugin-config.ts'

export interface KubeletOptions {
  /** The kubelet's `--image-credential-provider-config`. */
  readonly configPath: string
  /** The kubelet's `--image-credential-provider-bin-dir`. */
  readonly directory: string
  readonly timeoutMs?: number
  readonly env?: NodeJS.ProcessEnv
  readonly log: CredentialLog
}

interface Login {
  readonly credential: Credential
  readonly expiresAtMs: number
}

const TIMEOUT_MS = 60_000

/** Credential provider plugins of the kubelet, asked as it asks them. */
export class KubeletCredentials implements CredentialProvider {
  readonly name = 'kubelet'
  readonly isRenewable = true
  readonly #plugins: readonly KubeletPlugin[]
  readonly #log: CredentialLog

  private constructor(plugins: readonly KubeletPlugin[], log: CredentialLog) {
    this.#plugins = plugins
    this.#log = log
  }

  /** Throws SnapshotterError 'BAD_CONFIG' for a configuration that the kubelet would refuse too. */
  static async open(options: KubeletOptions): Promise<KubeletCredentials> {
    const { configPath, directory, timeoutMs = TIMEOUT_MS, env = process.env, log } = options
    const isFolder = await stat(directory).then(
      (stats) => stats.isDirectory(),
      () => false,
    )
    if (!isFolder)
      throw new SnapshotterError(
        'BAD_CONFIG',
        `cannot use remote.auth.credential_provider_bin_dir ${directory}: it is no directory; it is the kubelet's --image-credential-provider-bin-dir`,
      )
    const configs = await readPluginConfig(configPath, (line) => log.warn(line))
    return new KubeletCredentials(
      configs.map((config) => new KubeletPlugin(config, { directory, timeoutMs, env })),
      log,
    )
  }

  /** Every plugin for the image is asked; where two have a login for the same pattern, the first plugin's counts. */
  async find(
    { reference, validUntilMs }: CredentialRequest,
    signal: AbortSignal,
  ): Promise<FoundCredential | undefined> {
    const image = `${reference.host}/${reference.repository}`
    const all = new Map<string, Login>()
    const failures: Error[] = []
    for (const plugin of this.#plugins.filter((each) => each.serves(image))) {
      try {
        const found = await plugin.logins(image, validUntilMs, signal)
        for (const [pattern, credential] of found?.logins ?? [])
          if (!all.has(pattern)) all.set(pattern, { credential, expiresAtMs: found?.expiresAtMs ?? 0 })
      } catch (error) {
        if (signal.aborted) throw error
        failures.push(error as Error)
      }
    }
    const best = bestPattern(all.keys(), image)
    const login = best === undefined ? undefined : all.get(best)
    if (login === undefined) {
      if (failures.length > 0)
        throw new SnapshotterError('UNAVAILABLE', failures.map(({ message }) => message).join('; '))
      return undefined
    }
    for (const { message } of failures) this.#log.warn(message)
    return { credential: login.credential, ...(login.expiresAtMs > 0 ? { expiresAtMs: login.expiresAtMs } : {}) }
  }
}
