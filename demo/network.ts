import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { NetworkCount, NetworkPorts, NetworkStart } from './network-process.ts'

/** The demo's registry behind its simulated network, in a process of its own. */
export interface Network {
  readonly ports: NetworkPorts
  /** What went over the link since the last call. */
  count(): Promise<NetworkCount>
  stop(): Promise<void>
}

/** Starts registry and link. Throws when the process cannot start them. */
export async function startNetwork(wanted: NetworkStart): Promise<Network> {
  const child = fork(join(import.meta.dirname, 'network-process.ts'), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  const answer = async <T>(member: 'started' | 'counted', message: object): Promise<T> => {
    child.send(message)
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the registry's process ended with ${code}`)
    })
    const [reply] = (await Promise.race([once(child, 'message'), ended])) as [Record<string, T>]
    const value = reply[member]
    if (value === undefined) throw new Error(`the registry's process sent something else than "${member}"`)
    ended.catch(() => undefined) // It ends one day; nobody waits for that any more.
    return value
  }
  return {
    ports: await answer<NetworkPorts>('started', { start: wanted }),
    count: () => answer<NetworkCount>('counted', { count: true }),
    stop: async () => {
      if (child.exitCode !== null) return
      child.disconnect()
      await once(child, 'exit')
    },
  }
}
