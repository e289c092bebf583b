import { join } from 'node:path'
import type { DockerConfigOptions } from '../../registry/index.ts'
import type { Settings } from '../settings/index.ts'
import type { RawService, ServiceForwarder } from '../../containerd/index.ts'
import type { Labels } from '../snapshot.ts'
import type { Credential } from './credential.ts'
import { DockerCredentials } from './docker-credentials.ts'
import { imageNameOf } from './image-name.ts'
import { KubeletCredentials } from './kubelet/kubelet-credentials.ts'
import { imageProxy } from './image-proxy.ts'
import { KubernetesCredentials } from './kubernetes/kubernetes-credentials.ts'
import { LabelCredentials } from './label-credentials.ts'
import type { CredentialLog, CredentialProvider } from './provider.ts'
import { ProviderChain } from './provider-chain.ts'
import { PullCredentials } from './pull-credentials.ts'
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

interface OpenedParts {
  readonly all: ProviderChain
  readonly renewed: RenewedCredentials | undefined
  readonly pulls: PullCredentials | undefined
  readonly proxy: ServiceForwarder | undefined
  readonly kubernetes: KubernetesCredentials | undefined
  readonly intervalMs: number
}

/**
 * All places where credentials for images may be, asked in upstream's order: renewed ones, labels, pulls through our socket, Docker, plugins of the kubelet,
 * secrets of Kubernetes. The first that has one wins.
 */
export class Credentials implements CredentialFinder {
  readonly #parts: OpenedParts

  private constructor(parts: OpenedParts) {
    this.#parts = parts
  }

  /** Throws SnapshotterError 'BAD_CONFIG' that names the key. */
  static async open({ settings, directory, log, docker }: CredentialParts): Promise<Credentials> {
    const { kubelet, cri, kubeconfig, renewalIntervalMs: intervalMs } = settings
    const renewable: CredentialProvider[] = [new DockerCredentials(docker)]
    if (kubelet.enable)
      renewable.push(await KubeletCredentials.open({ configPath: kubelet.config, directory: kubelet.binDir, log }))
    const kubernetes = kubeconfig.enable
      ? await KubernetesCredentials.open({ path: kubeconfig.path, env: process.env, log })
      : undefined
    if (kubernetes !== undefined) renewable.push(kubernetes)
    const pulls = cri.enable ? await PullCredentials.open(join(directory, 'pulls.json'), log) : undefined
    const path = join(directory, 'renewed.json')
    const providers = new ProviderChain(renewable, log)
    return new Credentials({
      all: new ProviderChain([new LabelCredentials(), ...(pulls === undefined ? [] : [pulls]), ...renewable], log),
      renewed: intervalMs > 0 ? await RenewedCredentials.open({ path, intervalMs, providers, log }) : undefined,
      pulls,
      kubernetes,
      proxy: pulls && imageProxy({ address: cri.imageServiceAddress, credentials: pulls, log }),
      intervalMs,
    })
  }

  /** To be served beside the snapshots: CRI's image service, when `remote.auth.enable_cri_keychain` is set. */
  get services(): readonly RawService[] {
    return this.#parts.proxy === undefined ? [] : [this.#parts.proxy]
  }

  async find(reference: string, labels: Labels, signal: AbortSignal): Promise<Credential | undefined> {
    const image = imageNameOf(reference)
    const kept = image === undefined ? undefined : this.#parts.renewed?.get(image)
    if (kept !== undefined) return kept
    const found = await this.#parts.all.find(reference, labels, Date.now() + this.#parts.intervalMs, signal)
    if (found === undefined) return undefined
    if (image !== undefined && found.provider.isRenewable)
      this.#parts.renewed?.keep(image, found.credential, found.expiresAtMs)
    return found.credential
  }

  /** To be called once, when running daemons are known again: from now on their credentials are renewed. */
  startRenewal(inUse: ImagesInUse): void {
    this.#parts.renewed?.start(inUse)
  }

  /** One round of it, now. */
  async renew(inUse: ImagesInUse): Promise<void> {
    await this.#parts.renewed?.renew(inUse)
  }

  counts(): CredentialCounts {
    return { renewals: this.#parts.renewed?.counts ?? new Map(), entries: [...(this.#parts.renewed?.images ?? [])] }
  }

  /** Ends what is under way; what is kept across restarts is written then. */
  async close(): Promise<void> {
    this.#parts.proxy?.close()
    await this.#parts.renewed?.close()
    await this.#parts.pulls?.close()
    await this.#parts.kubernetes?.close()
  }
}
