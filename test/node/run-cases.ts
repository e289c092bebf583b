import { type NodeCase, World } from './case.ts'
import type { Images } from './images.ts'
import type { Programs } from './node.ts'
import type { Runtime } from './runtimes.ts'

export interface CaseResult {
  readonly outcome: 'passed' | 'failed' | 'skipped'
  /** Of a failure: what the programs said. */
  readonly logs: string
  /** For people, without the case's name. */
  readonly text: string
}

const worlds = new Set<World>()

/** Ends what cases have begun, when nobody waits for them any more. */
export async function endWorlds(): Promise<void> {
  for (const world of worlds) await world[Symbol.asyncDispose]()
}

/** Tries a case in a world of its own, which is gone afterwards. */
export async function runCase(
  one: NodeCase,
  parts: { readonly runtime: Runtime; readonly images: Images; readonly programs: Programs },
): Promise<CaseResult> {
  const world = new World(parts)
  const reason = one.whyNot?.(world)
  if (reason !== undefined) return { outcome: 'skipped', logs: '', text: reason }
  worlds.add(world)
  const from = performance.now()
  const seconds = (): string => `${((performance.now() - from) / 1000).toFixed(1)} s`
  try {
    const found = await one.run(world)
    return {
      outcome: 'passed',
      logs: '',
      text: `${one.title} (${found === undefined ? '' : `${found}, `}${seconds()})`,
    }
  } catch (error) {
    return { outcome: 'failed', logs: world.logs(), text: `${messageOf(error)} (${seconds()})` }
  } finally {
    await world[Symbol.asyncDispose]()
    worlds.delete(world)
  }
}

/** With what caused it. */
function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message}: ${messageOf(error.cause)}`
}
