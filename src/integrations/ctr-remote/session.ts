import { randomBytes } from 'node:crypto'
import {
  type CallOptions,
  ContainerdClient,
  ContainerdError,
  Containers,
  Content,
  Diff,
  Images,
  Leases,
  Snapshots,
  Tasks,
  Version,
} from '../../containerd/index.ts'
import { IntegrationError } from '../errors.ts'

/** Where containerd is, and as whom it is asked. */
export interface SessionOptions {
  /** Path of its socket. */
  readonly address: string
  readonly namespace: string
  /** Until it answers the first question, in milliseconds. */
  readonly connectTimeoutMs: number
}

/** One that nobody deletes is removed after a day, with all that only it holds. */
const LEASE_HOURS = 24
const CALL_TIMEOUT_MS = 60_000
const RELEASE_TIMEOUT_MS = 10_000
const RETRY_MS = 100

/**
 * A connection to containerd under a lease: what is written through it stays until it is closed, however little refers to it yet. What an image record refers to by then stays for good.
 */
export class Session implements AsyncDisposable {
  readonly containers
  readonly content
  readonly diff
  readonly images
  readonly snapshots
  readonly tasks
  readonly signal: AbortSignal
  readonly #client: ContainerdClient
  readonly #lease: string

  private constructor(client: ContainerdClient, lease: string, signal: AbortSignal) {
    this.#client = client
    this.#lease = lease
    this.signal = signal
    this.containers = client.service(Containers)
    this.content = client.service(Content)
    this.diff = client.service(Diff)
    this.images = client.service(Images)
    this.snapshots = client.service(Snapshots)
    this.tasks = client.service(Tasks)
  }

  /** Throws 'UNREACHABLE' when nobody answers in time, ContainerdError, or the signal's reason. */
  static async open(options: SessionOptions, signal: AbortSignal): Promise<Session> {
    const { address, namespace, connectTimeoutMs } = options
    const client = new ContainerdClient(address, { namespace, timeoutMs: CALL_TIMEOUT_MS })
    try {
      await answers(client, address, connectTimeoutMs, signal)
      const id = `${Date.now()}-${randomBytes(6).toString('base64url')}`
      const until = new Date(Date.now() + LEASE_HOURS * 3_600_000)
      const labels = { 'containerd.io/gc.expire': until.toISOString().replace(/\.\d+Z$/, 'Z') }
      await client.service(Leases).create({ id, labels }, { signal })
      return new Session(client, id, signal)
    } catch (error) {
      client.close()
      signal.throwIfAborted()
      throw error
    }
  }

  /** What goes with calls that answer soon. */
  get soon(): CallOptions {
    return { signal: this.signal, metadata: { 'containerd-lease': this.#lease } }
  }

  /** What goes with calls that take as long as there is data; `signal` if it is not the session's own. */
  endless(signal: AbortSignal = this.signal): CallOptions {
    return { signal, timeoutMs: Infinity, metadata: { 'containerd-lease': this.#lease } }
  }

  /** For cleaning up, also after the signal. */
  get last(): CallOptions {
    return { timeoutMs: RELEASE_TIMEOUT_MS, metadata: { 'containerd-lease': this.#lease } }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#client.service(Leases).delete({ id: this.#lease }, { timeoutMs: RELEASE_TIMEOUT_MS })
    } catch (error) {
      // It expires by itself; and the connection may be what ended the work.
      if (!(error instanceof ContainerdError)) throw error
    } finally {
      this.#client.close()
    }
  }
}

async function answers(
  client: ContainerdClient,
  address: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  const until = Date.now() + timeoutMs
  for (;;)
    try {
      await client.service(Version).version({}, { signal, timeoutMs })
      return
    } catch (error) {
      signal.throwIfAborted()
      const passing =
        error instanceof ContainerdError && (error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED')
      if (!passing) throw error
      if (Date.now() >= until)
        throw new IntegrationError(
          'UNREACHABLE',
          `failed to dial "${address}": ${error.message.replace(/ ?Resolution note: *$/, '')}; is containerd running there? --address names its socket, and it may need root`,
          { cause: error },
        )
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
    }
}
