import { join } from 'node:path'
import type { DockerConfigOptions } from '../../registry/index.ts'
import type { Settings } from '../settings/index.ts'
import type { Labels } from '../snapshot.ts'
import type { Credential } from './credential.ts'
import { DockerCredentials } from './docker-credentials.ts'
import { imageNameOf } from './image-name.ts'
import { KubeletCredentials } from './kubelet/kubelet-credentials.ts'
import { LabelCredentials } from './label-credentials.ts'
import type { CredentialLog, CredentialProvider } from './provider.ts'
import { ProviderChain } from './provider-chain.ts'
import { type ImagesInUse, type RenewalCount, RenewedCredentials } from './renewed-credentials.ts'

export interface CredentialParts {
  /** `remote.auth`: which places are looked at. */
  readonly settings: Settings['remote']['auth']
  /** Folder for what is kept across restarts; made when first needed, mode 0700. */
  readonly directory: string
  readonly log: CredentialLog
  /** By default the Docker client's of the user that the snapshotter runs as. */
  readonly docker?: DockerConfigOptions
}

/** What the rest of the snapshotter asks. */
export interface CredentialFinder {
  /**
   * Credentials for an image; undefined: the registry is asked anonymously. `labels` are the snapshot's. Rejects with SnapshotterError 'CANCELLED' or
   * 'DEADLINE_EXCEEDED' only, when `signal` is aborted.
   */
  find(reference: string, labels: Labels, signal: AbortSignal): Promise<Credential | undefined>
}

/** Numbers for metrics, by image. */
export interface CredentialCounts {
  readonly renewals: ReadonlyMap<string, Readonly<RenewalCount>>
  readonly entries: readonly string[]
}

/**
 * All places where credentials for images may be, asked in upstream's order: renewed ones, labels, Docker, plugins of the kubelet. The first that has
 * one wins.
 */
export class Credentials implements CredentialFinder {
  readonly #all: ProviderChain
  readonly #renewed: RenewedCredentials | undefined
  readonly #intervalMs: number

  private constructor(all: ProviderChain, renewed: RenewedCredentials | undefined, intervalMs: number) {
    this.#all = all
    this.#renewed = renewed
    this.#intervalMs = intervalMs
  }

  /** Throws SnapshotterError 'BAD_CONFIG' that names the key. */
  static async open({ settings, directory, log, docker }: CredentialParts): Promise<Credentials> {
    const { kubelet, renewalIntervalMs: intervalMs } = settings
    const renewable: CredentialProvider[] = [new DockerCredentials(docker)]
    if (kubelet.enable)
      renewable.push(await KubeletCredentials.open({ configPath: kubelet.config, directory: kubelet.binDir, log }))
    const path = join(directory, 'renewed.json')
    const providers = new ProviderChain(renewable, log)
    const renewed = intervalMs > 0 ? await RenewedCredentials.open({ path, intervalMs, providers, log }) : undefined
    return new Credentials(new ProviderChain([new LabelCredentials(), ...renewable], log), renewed, intervalMs)
  }

  async find(reference: string, labels: Labels, signal: AbortSignal): Promise<Credential | undefined> {
    const image = imageNameOf(reference)
    const kept = image === undefined ? undefined : this.#renewed?.get(image)
    if (kept !== undefined) return kept
    const found = await this.#all.find(reference, labels, Date.now() + this.#intervalMs, signal)
    if (found === undefined) return undefined
    if (image !== undefined && found.provider.isRenewable)
      this.#renewed?.keep(image, found.credential, found.expiresAtMs)
    return found.credential
  }

  /** To be called once, when running daemons are known again: from now on their credentials are renewed. */
  startRenewal(inUse: ImagesInUse): void {
    this.#renewed?.start(inUse)
  }

  /** One round of it, now. */
  async renew(inUse: ImagesInUse): Promise<void> {
    await this.#renewed?.renew(inUse)
  }

  counts(): CredentialCounts {
    return { renewals: this.#renewed?.counts ?? new Map(), entries: [...(this.#renewed?.images ?? [])] }
  }

  /** Ends what is under way; what is kept across restarts is written then. */
  async close(): Promise<void> {
    await this.#renewed?.close()
  }
}
