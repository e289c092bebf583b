import { BlockList, isIP } from 'node:net'
import { DragonflyError, printable } from './errors.ts'
import type { Host } from './proto/common_pb.ts'
import type { CallOptions } from './unary-call.ts'

/** A peer that fetches for others and keeps what it fetched. */
export interface SeedPeer {
  /** By this name it has its places on the ring. */
  readonly name: string
  /** `http://IP:PORT` of its gRPC server. */
  readonly server: string
  /** `http://IP:PORT` of its HTTP proxy. */
  readonly proxy: string
}

export interface SeedHosts {
  readonly peers: readonly SeedPeer[]
  /** What is wrong with hosts that were left out. */
  readonly refused: readonly string[]
}

/** A cluster has a handful. Each costs a health check a minute and its places on the ring. */
const MAX_PEERS = 512
const MAX_NAME_BYTES = 1024
const MAX_PORT = 65_535

/** Nobody can be asked at these. */
const NOWHERE = new BlockList()
NOWHERE.addSubnet('0.0.0.0', 8, 'ipv4')
NOWHERE.addSubnet('224.0.0.0', 4, 'ipv4')
NOWHERE.addAddress('255.255.255.255', 'ipv4')
NOWHERE.addAddress('::', 'ipv6')
NOWHERE.addSubnet('ff00::', 8, 'ipv6')
const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

/** Whether text is the `http://HOST:PORT` of a scheduler. */
export function isSchedulerEndpoint(endpoint: string): boolean {
  const url = URL.parse(endpoint)
  return url?.protocol === 'http:' && url.username === '' && url.password === ''
}

function schedulerOrigin(endpoint: string): string {
  if (!isSchedulerEndpoint(endpoint))
    throw new DragonflyError(
      'BAD_ENDPOINT',
      'the endpoint of the Dragonfly scheduler is no http://HOST:PORT, which is all that is spoken to it',
    )
  return new URL(endpoint).origin
}

/** Asks the scheduler for its seed peers. Throws DragonflyError. */
export async function listSeedHosts(endpoint: string, options: CallOptions): Promise<SeedHosts> {
  const scheduler = schedulerOrigin(endpoint)
  const { listHosts } = await import('./cluster-calls.ts')
  const { hosts, remoteAddress } = await listHosts(scheduler, options)
  if (hosts.length > MAX_PEERS)
    throw new DragonflyError(
      'BAD_RESPONSE',
      `the Dragonfly scheduler names ${hosts.length} seed peers, more than ${MAX_PEERS}`,
    )
  return seedHosts(hosts, isIn(LOOPBACK, remoteAddress))
}

/** `isNear`: the scheduler is on this machine, so that addresses of the loopback interface are what it says they are. */
export function seedHosts(hosts: readonly Host[], isNear: boolean): SeedHosts {
  const peers = new Map<string, SeedPeer>()
  const refused: string[] = []
  for (const host of hosts) {
    const { name, ip, port, proxyPort } = host
    const wrong = peers.has(name) ? 'has the name of another' : whatIsWrong(host, isNear)
    if (wrong !== undefined) {
      refused.push(`seed peer "${printable(name)}" (${printable(ip)}) ${wrong}`)
      continue
    }
    const at = isIP(ip) === 6 ? `[${ip}]` : ip
    peers.set(name, { name, server: `http://${at}:${port}`, proxy: `http://${at}:${proxyPort}` })
  }
  return { peers: [...peers.values()], refused }
}

function whatIsWrong({ name, ip, port, proxyPort }: Host, isNear: boolean): string | undefined {
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) return `has a name of more than ${MAX_NAME_BYTES} bytes`
  if (isIP(ip) === 0 || ip.includes('%')) return 'has no IP address'
  if (isIn(NOWHERE, ip)) return 'has an address at which nobody can be'
  if (isIn(LOOPBACK, ip) && !isNear) return 'has an address of this machine, which is not where the scheduler is'
  if (!isPort(port)) return `has no port, but ${port}`
  if (!isPort(proxyPort)) return `has no port of a proxy, but ${proxyPort}`
  return undefined
}

function isPort(value: number): boolean {
  return value >= 1 && value <= MAX_PORT
}

function isIn(list: BlockList, ip: string): boolean {
  const family = isIP(ip)
  return family !== 0 && list.check(ip, family === 6 ? 'ipv6' : 'ipv4')
}
