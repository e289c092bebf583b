/**
 * A process of its own for the registry and the network in front of it, so that they take no time from the processes that are measured.
 * Speaks by IPC: `{ start }` → `{ started }`, `{ count: true }` → `{ counted }`; ends when its parent does.
 */
import { Link } from '../bench/link.ts'
import { startRegistry, type RegistryServer } from '../src/registry/index.ts'

export interface NetworkStart {
  readonly root: string
  readonly bitsPerSecond: number
  readonly roundTripMs: number
}
export interface NetworkPorts {
  /** The registry itself, without the simulated network. */
  readonly registry: number
  /** The registry at the far end of the network. */
  readonly link: number
}
/** What went over the link since the last count. */
export interface NetworkCount {
  readonly bytes: number
  readonly requests: number
  readonly connections: number
}

let registry: RegistryServer | undefined
let link: Link | undefined
let counted = { bytes: 0, requests: 0, connections: 0 }

process.on('message', (message: { start?: NetworkStart; count?: true }) => {
  if (message.start) start(message.start).catch(fail)
  if (message.count) process.send?.({ counted: count() })
})
process.on('disconnect', () => process.exit(0))

/** The parent hears of the exit; the reason stands on stderr. */
function fail(error: unknown): void {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}

async function start(wanted: NetworkStart): Promise<void> {
  registry = await startRegistry({ root: wanted.root, host: '127.0.0.1', port: 0 })
  link = await Link.start({
    bitsPerSecond: wanted.bitsPerSecond,
    roundTripMs: wanted.roundTripMs,
    target: { host: '127.0.0.1', port: registry.port },
  })
  process.send?.({ started: { registry: registry.port, link: link.port } satisfies NetworkPorts })
}

function count(): NetworkCount {
  if (registry === undefined || link === undefined) throw new Error('count before start')
  const requests = Object.values(registry.counters()).reduce((sum, route) => sum + route.requests, 0)
  const total = { bytes: link.counters.bytesDown, requests, connections: link.counters.connections }
  const since = {
    bytes: total.bytes - counted.bytes,
    requests: total.requests - counted.requests,
    connections: total.connections - counted.connections,
  }
  counted = total
  return since
}
