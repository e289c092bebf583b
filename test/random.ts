/** Numbers that look random and are the same for the same seed: what fails once fails again. */

/** Gives numbers from 0 below a bound. */
export type Random = (below: number) => number

/** Source: "mulberry32", public domain. */
export function randomOf(seed: number): Random {
  let state = seed >>> 0
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000) * Math.max(1, below))
  }
}

export function oneOf<T>(random: Random, values: readonly [T, ...T[]]): T {
  return values[random(values.length)] ?? values[0]
}

/** True once in so many times. */
export function once(random: Random, times: number): boolean {
  return random(times) === 0
}

export function randomBytes(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at++) bytes[at] = random(256)
  return bytes
}

/** A long run is longer than tests may be. */
export const PROPERTY_LIMITS = process.env['PROPERTY_RUNS'] === undefined ? {} : { timeout: 24 * 3_600_000 }

/**
 * Runs a property for one seed after another, from `PROPERTY_SEED` (default 1) on, `PROPERTY_RUNS` or `runs` of them. An error names the seed that repeats it.
 */
export async function forSeeds(runs: number, check: (random: Random, seed: number) => Promise<void>): Promise<void> {
  const first = Number(process.env['PROPERTY_SEED'] ?? 1)
  const count = Number(process.env['PROPERTY_RUNS'] ?? runs)
  for (let seed = first; seed < first + count; seed++) {
    try {
      await check(randomOf(seed), seed)
    } catch (error) {
      const again = `PROPERTY_SEED=${seed} PROPERTY_RUNS=1 repeats it`
      throw new Error(`seed ${seed} (${again}): ${error instanceof Error ? error.message : String(error)}`, {
        cause: error,
      })
    }
  }
}
