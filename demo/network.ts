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
  // In a group of its own: Ctrl-C at the terminal does not reach it, so that it outlives what still uses it.
  const child = fork(join(import.meta.dirname, 'network-process.ts'), {
    execArgv: ['--disable-warning=ExperimentalWarning'],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    detached: true,
  })
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`the registry's process ended with ${code}`)
  })
  ended.catch(() => undefined) // It ends one day; whoever asks it something then is told.
  const answer = async <T>(member: 'started' | 'counted', message: object): Promise<T> => {
    child.send(message)
    const [reply] = (await Promise.race([once(child, 'message'), ended])) as [Record<string, T>]
    const value = reply[member]
    if (value === undefined) throw new Error(`the registry's process sent something else than "${member}"`)
    return value
  }
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.disconnect()
    await exit
  }
  try {
    const ports = await answer<NetworkPorts>('started', { start: wanted })
    return { ports, count: () => answer<NetworkCount>('counted', { count: true }), stop }
  } catch (error) {
    if (child.connected) await stop()
    throw error
  }
}
