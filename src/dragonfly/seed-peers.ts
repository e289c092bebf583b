import { HashRing } from './hash-ring.ts'
import { listSeedHosts, type SeedPeer } from './seed-hosts.ts'
import { taskId } from './task-id.ts'
import { DragonflyError } from './errors.ts'

export interface SeedTiming {
  /** From one question for the peers to the next, also when none of them is well. */
  readonly refreshMs: number
  /** The same after a question that the scheduler did not answer. */
  readonly againMs: number
  /** For the scheduler's answer, and for each peer's. */
  readonly timeoutMs: number
  /** A peer that failed is not asked for so long. */
  readonly restMs: number
}

export const SEED_TIMING: SeedTiming = { refreshMs: 60_000, againMs: 10_000, timeoutMs: 5_000, restMs: 10_000 }

const MAX_NOTICES = 4

type Tell = (text: string) => void

/**
 * The seed peers that a scheduler knows and that say they are well, asked for when made and every minute from then on. When the scheduler does not answer, those from before stay.
 * What is fetched belongs to one of them, the same for all clients of the cluster.
 */
export class SeedPeers {
  readonly #endpoint: string
  readonly #timing: SeedTiming
  readonly #tell: Tell
  readonly #closing = new AbortController()
  readonly #resting = new Map<string, number>()
  readonly #first: Promise<void>
  #peers: ReadonlyMap<string, SeedPeer> = new Map()
  #ring = new HashRing([])
  #timer: NodeJS.Timeout | undefined
  /** What was told last, so that it is not told each minute. */
  #told = ''

  constructor(endpoint: string, tell: Tell, timing: SeedTiming = SEED_TIMING) {
    this.#endpoint = endpoint
    this.#timing = timing
    this.#tell = tell
    tell(`creating new proxy sdk client for ${endpoint}`)
    this.#first = this.#refresh()
  }

  /** Resolves when the first question for peers has ended, however it did. */
  get asked(): Promise<void> {
    return this.#first
  }

  /** The `http://IP:PORT` of the proxy to ask for what is at an address; undefined: no peer can be asked now. */
  proxyFor(address: string): string | undefined {
    const task = taskId(address)
    const name = task === undefined ? undefined : this.#ring.find(task)
    const proxy = name === undefined ? undefined : this.#peers.get(name)?.proxy
    if (proxy === undefined || (this.#resting.get(proxy) ?? 0) > performance.now()) return undefined
    return proxy
  }

  /** This one did not answer: for a while what belongs to it is asked for elsewhere, and no reader waits for it. */
  failed(proxy: string): void {
    this.#resting.set(proxy, performance.now() + this.#timing.restMs)
  }

  close(): void {
    this.#closing.abort()
    clearTimeout(this.#timer)
  }

  /** Never rejects: what is wrong is told, and asked for again. */
  async #refresh(): Promise<void> {
    let pauseMs = this.#timing.refreshMs
    try {
      await this.#ask()
    } catch (error) {
      if (!(error instanceof DragonflyError)) throw error
      if (this.#closing.signal.aborted) return
      pauseMs = this.#timing.againMs
      this.#tellOnce(`${error.message}; ${this.#peers.size} seed peers are known from before`)
    }
    if (this.#closing.signal.aborted) return
    this.#timer = setTimeout(() => void this.#refresh(), pauseMs).unref()
  }

  async #ask(): Promise<void> {
    const { timeoutMs } = this.#timing
    const { peers, refused } = await listSeedHosts(this.#endpoint, { timeoutMs, signal: this.#closing.signal })
    const ill: string[] = []
    const well = await this.#whoIsWell(peers, ill)
    if (this.#closing.signal.aborted) return
    const names = well.map(({ name }) => name).sort()
    if (names.join('\0') !== this.#ring.names.join('\0')) this.#ring = new HashRing(names)
    this.#peers = new Map(well.map((peer) => [peer.name, peer]))
    const now = performance.now()
    for (const [proxy, until] of this.#resting) if (until <= now) this.#resting.delete(proxy)
    this.#tellOnce([`${well.length} of ${peers.length} seed peers are well`, ...some([...refused, ...ill])].join('; '))
  }

  async #whoIsWell(peers: readonly SeedPeer[], ill: string[]): Promise<SeedPeer[]> {
    // All at once: readers may be waiting, and there are not more than a scheduler is believed to have.
    const wrong = await Promise.all(peers.map((peer) => this.#whatAils(peer)))
    ill.push(...wrong.filter((text) => text !== undefined))
    return peers.filter((_, index) => wrong[index] === undefined)
  }

  async #whatAils({ server }: SeedPeer): Promise<string | undefined> {
    const { timeoutMs } = this.#timing
    try {
      const { serves } = await import('./cluster-calls.ts')
      const isWell = await serves(server, { timeoutMs, signal: this.#closing.signal })
      return isWell ? undefined : `the seed peer at ${server} says that it does not serve`
    } catch (error) {
      if (error instanceof DragonflyError) return error.message
      throw error
    }
  }

  #tellOnce(text: string): void {
    if (text === this.#told) return
    this.#told = text
    this.#tell(`dragonfly scheduler ${this.#endpoint}: ${text}`)
  }
}

function some(lines: readonly string[]): readonly string[] {
  return lines.length <= MAX_NOTICES
    ? lines
    : [...lines.slice(0, MAX_NOTICES), `${lines.length - MAX_NOTICES} more are not well`]
}
