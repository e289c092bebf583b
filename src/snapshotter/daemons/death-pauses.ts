/** After so many deaths within a minute there is a pause, and a longer one after more. */
const DEATHS = { withinMs: 60_000, some: 4, pauseMs: 1_000, many: 20, longPauseMs: 10_000 } as const

/** How soon a daemon that died is brought back: one that dies again and again would keep the machine busy. Who needs it does not wait for this. */
export class DeathPauses {
  #deaths: readonly number[] = []

  /** It died now, by the monotonic clock, ms. Gives the pause before it is brought back, ms. */
  died(now = performance.now()): number {
    this.#deaths = [...this.#deaths.filter((at) => now - at < DEATHS.withinMs), now]
    if (this.#deaths.length <= DEATHS.some) return 0
    return this.#deaths.length <= DEATHS.many ? DEATHS.pauseMs : DEATHS.longPauseMs
  }
}
