import { lstatSync, readdirSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { ContainerdClient, Snapshots } from '../../containerd/index.ts'
import { containerdAddress } from '../containerd-config/index.ts'
import { Findings } from './finding.ts'
import { askVersion, type NodeFacts } from './node.ts'

const ASK_MS = 5000
const SERVICE = 'containerd-nydus-grpc'

/** Whether the snapshotter answers on its socket. */
export async function checkOwnSocket({ settings, signal }: NodeFacts): Promise<Findings> {
  const found = new Findings('snapshotter-socket')
  const { address } = settings
  const state = await socketState(address)
  if (state === 'absent')
    found.fail({
      what: `the snapshotter does not run: there is no socket ${address}`,
      fix: `systemctl start ${SERVICE}\njournalctl -u ${SERVICE} -n 50`,
    })
  else if (state === 'no-socket')
    found.fail({ what: `${address} is no socket`, fix: `mv ${address} ${address}.old && systemctl restart ${SERVICE}` })
  else if (state === 'dead')
    found.fail({
      what: `the snapshotter is gone: nobody listens on ${address}`,
      fix: `systemctl restart ${SERVICE}\njournalctl -u ${SERVICE} -n 50`,
    })
  else {
    const answer = await listSnapshots(address, signal)
    if (typeof answer === 'number') found.ok(`the snapshotter answers on ${address}: ${answer} snapshots`)
    else
      found.fail({
        what: `what listens on ${address} answers not as a snapshotter does: ${answer}`,
        fix: `ss -xlp | grep ${address}\nsystemctl restart ${SERVICE}`,
      })
  }
  return found
}

/** The number of snapshots, or what is wrong. */
async function listSnapshots(address: string, signal: AbortSignal): Promise<number | string> {
  const client = new ContainerdClient(address, { namespace: '', timeoutMs: ASK_MS })
  try {
    let count = 0
    for await (const { info } of client.service(Snapshots).list({ snapshotter: '', filters: [] }, { signal }))
      count += info.length
    return count
  } catch (error) {
    return (error as Error).message
  } finally {
    client.close()
  }
}

export async function checkContainerdSocket({ containerd, signal }: NodeFacts): Promise<Findings> {
  const found = new Findings('containerd-socket')
  if (containerd === undefined) found.skip('the configuration of containerd cannot be read')
  else {
    const address = containerdAddress(containerd)
    const version = await askVersion(address, signal)
    if (version === undefined)
      found.fail({
        what: `containerd does not answer on ${address}`,
        fix: 'systemctl start containerd\njournalctl -u containerd -n 50\nOr give its configuration: --containerd-config FILE',
      })
    else found.ok(`containerd ${version} answers on ${address}`)
  }
  return found
}

/** Sockets of nydusds that died: their containers wait for a new one. */
export async function checkDaemons({ settings }: NodeFacts): Promise<Findings> {
  const found = new Findings('daemons')
  const folder = join(settings.root, 'socket')
  const ids = namesIn(folder)
  let living = 0
  for (const id of ids) {
    const sockets = namesIn(join(folder, id)).filter((name) => name.endsWith('.sock'))
    const states = await Promise.all(sockets.map((name) => socketState(join(folder, id, name))))
    if (states.includes('alive')) living++
    else if (sockets.length > 0)
      found.fail({
        what: `nydusd ${id} is dead: nobody listens on ${join(folder, id, sockets.at(-1) ?? '')}`,
        fix: `tail -n 50 ${join(settings.log.dir, id, 'nydusd.log')}\nsystemctl restart ${SERVICE}     # starts it again, containers go on`,
      })
  }
  if (living > 0 || found.all.length === 0) found.ok(living === 1 ? '1 nydusd answers' : `${living} nydusds answer`)
  return found
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return [] // nothing has started yet
  }
}

async function socketState(path: string): Promise<'absent' | 'no-socket' | 'dead' | 'alive'> {
  const info = lstatSync(path, { throwIfNoEntry: false })
  if (info === undefined) return 'absent'
  if (!info.isSocket()) return 'no-socket'
  return await new Promise((resolve) => {
    const socket = connect(path)
    const end = (state: 'dead' | 'alive'): void => {
      socket.destroy()
      resolve(state)
    }
    socket.setTimeout(ASK_MS, () => end('alive')) // a full queue is somebody's too
    socket.once('connect', () => end('alive'))
    socket.once('error', () => end('dead'))
  })
}
