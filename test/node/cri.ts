/** What the kubelet does with a container runtime, by the calls of CRI. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Calls, ContainerdClient, ImageService, RuntimeService } from '../../src/containerd/index.ts'

const CALL_MS = 120_000

/** How ids of a pod's users are shifted on the host. */
export interface PodUsers {
  readonly hostId: number
  readonly length: number
}

export interface Pod {
  readonly id: string
  readonly config: ReturnType<typeof podConfig>
}

/** Where a pod is in the machine. */
export interface PodPlace {
  /** Logs of containers. */
  readonly logs: string
  /** A control group, for instance `/name`. */
  readonly cgroup: string
}

export class Cri {
  readonly #client: ContainerdClient
  readonly runtime: Calls<typeof RuntimeService>
  readonly images: Calls<typeof ImageService>
  readonly #place: PodPlace
  #pods = 0

  constructor(socket: string, place: PodPlace) {
    this.#client = new ContainerdClient(socket, { namespace: '', timeoutMs: CALL_MS })
    this.runtime = this.#client.service(RuntimeService)
    this.images = this.#client.service(ImageService)
    this.#place = place
  }

  close(): void {
    this.#client.close()
  }

  async pull(image: string, auth?: { readonly username: string; readonly password: string }): Promise<string> {
    const { imageRef } = await this.images.pullImage({ image: { image }, ...(auth === undefined ? {} : { auth }) })
    return imageRef
  }

  async removeImage(image: string): Promise<void> {
    await this.images.removeImage({ image: { image } })
  }

  async runPod(users?: PodUsers): Promise<Pod> {
    const name = `pod-${(this.#pods += 1)}`
    const config = podConfig(name, this.#place, users)
    const { podSandboxId } = await this.runtime.runPodSandbox({ config })
    return { id: podSandboxId, config }
  }

  /** A container that runs; its command's output goes into the file that `logOf` reads. */
  async start(pod: Pod, image: string, command: readonly string[], name = 'main'): Promise<string> {
    const { containerId } = await this.runtime.createContainer({
      podSandboxId: pod.id,
      sandboxConfig: pod.config,
      config: {
        metadata: { name },
        image: { image },
        command: [...command],
        logPath: `${pod.config.metadata.name}-${name}.log`,
        linux: { securityContext: { namespaceOptions: pod.config.linux.securityContext.namespaceOptions } },
      },
    })
    await this.runtime.startContainer({ containerId })
    return containerId
  }

  /** What containers of a pod wrote, without times and streams. */
  logOf(pod: Pod, name = 'main'): string {
    const lines = readFileSync(join(this.#place.logs, `${pod.config.metadata.name}-${name}.log`), 'utf8').split('\n')
    return lines.map((line) => line.split(' ').slice(3).join(' ')).join('\n')
  }

  /** The script's output; throws when it fails. */
  async exec(containerId: string, script: string, seconds = 60): Promise<string> {
    const answer = await this.runtime.execSync(
      { containerId, cmd: ['/bin/sh', '-c', script], timeout: BigInt(seconds) },
      { timeoutMs: (seconds + 20) * 1000 },
    )
    const [stdout, stderr] = [answer.stdout, answer.stderr].map((bytes) => Buffer.from(bytes).toString())
    assert.equal(answer.exitCode, 0, `${script}: ${stdout}${stderr}`)
    return stdout ?? ''
  }

  async stopAndRemove(containerId: string): Promise<void> {
    await this.runtime.stopContainer({ containerId, timeout: 0n })
    await this.runtime.removeContainer({ containerId })
  }

  async removePod({ id }: { readonly id: string }): Promise<void> {
    await this.runtime.stopPodSandbox({ podSandboxId: id })
    await this.runtime.removePodSandbox({ podSandboxId: id })
  }

  /** All pods and images there are; their data is gone afterwards. */
  async removeAll(): Promise<void> {
    for (const pod of (await this.runtime.listPodSandbox({})).items) await this.removePod(pod)
    for (const { id } of (await this.images.listImages({})).images) await this.removeImage(id)
  }
}

function podConfig(name: string, { logs, cgroup }: PodPlace, users: PodUsers | undefined) {
  const ids = users === undefined ? [] : [{ hostId: users.hostId, containerId: 0, length: users.length }]
  const usernsOptions = { mode: NODE_MODE.pod, uids: ids, gids: ids }
  return {
    metadata: { name, uid: `uid-${name}`, namespace: 'test', attempt: 0 },
    // With the host's network it has the host's name.
    hostname: users === undefined ? '' : name,
    logDirectory: logs,
    linux: {
      cgroupParent: cgroup,
      securityContext: {
        namespaceOptions: {
          // A pod in a user namespace cannot have the host's network.
          network: users === undefined ? NODE_MODE.node : NODE_MODE.pod,
          ...(users === undefined ? {} : { usernsOptions }),
        },
      },
    },
  }
}

/** CRI's NamespaceMode. */
const NODE_MODE = { pod: 0, node: 2 } as const
