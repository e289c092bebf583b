/** What became of one question to a daemon. */
export interface Asked {
  readonly api: 'answered' | 'silent' | 'unknown'
  readonly mount: 'answered' | 'silent' | 'unknown'
  /** What it took, the pause after it included. */
  readonly elapsedMs: number
  /** Why it could not answer, when that is not its own fault. */
  readonly excuse: string | undefined
}

/** A mount alone is waited for so much longer, that is, time in which only it was silent counts for so much less: threads that serve it may all wait for a slow registry. */
const MOUNT_PATIENCE = 2

/** How long a daemon has not answered, and whether that is long enough. Time in which it could not have answered does not count. */
export class Silence {
  readonly #limitMs: number
  readonly #countedMs = { api: 0, mount: 0 }
  #totalMs = 0
  #last: Asked | undefined

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  /** Of a question to which at least one of the two was silent. */
  add(asked: Asked): void {
    this.#last = asked
    this.#totalMs += asked.elapsedMs
    for (const part of ['api', 'mount'] as const)
      if (asked[part] !== 'silent') this.#countedMs[part] = 0
      else if (asked.excuse === undefined) this.#countedMs[part] += asked.elapsedMs / patienceWith(part, asked)
  }

  /** What hangs: whoever waits for it would wait for ever. */
  get verdict(): 'none' | 'api' | 'mount' | 'both' {
    const isApi = this.#countedMs.api >= this.#limitMs
    const isMount = this.#countedMs.mount >= this.#limitMs
    return isApi && isMount ? 'both' : isApi ? 'api' : isMount ? 'mount' : 'none'
  }

  /** It is silent for long, whatever the reason. */
  get isLong(): boolean {
    return this.#totalMs >= this.#limitMs
  }

  /** For people: what is silent, for how long, and why. */
  get text(): string {
    const { api, mount, excuse } = this.#last ?? {}
    const who = [api === 'silent' ? 'its API' : '', mount === 'silent' ? 'its mount' : ''].filter((word) => word !== '')
    const verb = who.length > 1 ? 'do' : 'does'
    const why = excuse === undefined ? '' : `; ${excuse}`
    return `${who.join(' and ')} ${verb} not answer for ${Math.round(this.#totalMs / 1000)} s${why}`
  }
}

function patienceWith(part: 'api' | 'mount', { api }: Asked): number {
  return part === 'mount' && api !== 'silent' ? MOUNT_PATIENCE : 1
}
