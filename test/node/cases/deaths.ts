/** Programs that are killed, stopped and replaced while a container reads. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { NodeCase, World } from '../case.ts'
import type { NodeSettings } from '../configurations.ts'
import { isEmptied, isStopped } from '../emptied.ts'
import { isAlive, killProcess, until } from '../launched.ts'
import type { TestNode } from '../node.ts'
import { READ_ON, Readers } from '../readers.ts'

type Policy = NodeSettings['recover']
type Mode = NodeSettings['mode']

const WHAT: Readonly<Record<Policy, string>> = {
  failover: 'a container reads on through deaths of daemon, snapshotter, containerd and through upgrades',
  restart: 'after a death of the daemon containers that start are served',
  none: 'what nydusd does about its own death is enough',
}
const POLICIES: readonly Policy[] = ['failover', 'restart', 'none']
const MODES: readonly Mode[] = ['shared', 'dedicated']

export const DEATH_CASES: readonly NodeCase[] = POLICIES.flatMap((recover) =>
  MODES.map((mode) => ({
    name: `deaths-${recover}-${mode}`,
    title: `recover_policy ${recover}, ${mode} daemon: ${WHAT[recover]}`,
    isShort: recover === 'failover' && mode === 'shared',
    whyNot: (world: World) =>
      world.isOriginal && recover === 'none' && mode === 'dedicated'
        ? "the original's snapshotter forgets a daemon that another has followed"
        : undefined,
    run: (world: World) => survives(world, { recover, mode }),
  })),
)

/** Something that happens to a node, which its containers must not notice. */
type Event = readonly [what: string, happen: (node: TestNode) => Promise<void>]

const KILL_SNAPSHOTTER: Event = ['snapshotter killed', (node) => restartSnapshotter(node, 'SIGKILL')]
const STOP_SNAPSHOTTER: Event = ['snapshotter stopped', (node) => restartSnapshotter(node, 'SIGTERM')]
const KILL_CONTAINERD: Event = ['containerd killed', (node) => node.restartContainerd('SIGKILL')]
const KILL_DAEMON: Event = ['daemon killed', killDaemon]
const UPGRADE: Event = ['daemon upgraded', upgrade]
/** The original keeps the state in its memory, so it cannot take over what died with it. */
const KILL_BOTH: Event = ['snapshotter and daemon killed', killBoth]
/** As `systemctl kill` does, and what ends a service that takes too much memory. */
const KILL_SERVICE: Event = ['all processes of the service killed', killService]

function eventsOf(policy: Policy, { isOriginal, hasKeeper }: World): readonly Event[] {
  const harmless = [KILL_SNAPSHOTTER, STOP_SNAPSHOTTER, KILL_CONTAINERD]
  const both = isOriginal ? [] : [KILL_BOTH]
  const whole = isOriginal ? [] : [KILL_SERVICE, KILL_SERVICE]
  if (policy === 'failover') return [KILL_DAEMON, KILL_DAEMON, UPGRADE, ...harmless, KILL_DAEMON, ...both, ...whole]
  // A container that runs has lost its root when its daemon is replaced; ours comes back before that, where it is let.
  if (!hasKeeper) return harmless
  if (policy === 'none') return isOriginal ? [KILL_DAEMON] : [...harmless, KILL_DAEMON]
  return isOriginal ? harmless : [...harmless, KILL_DAEMON, ...both]
}

async function survives(world: World, settings: NodeSettings): Promise<string> {
  const isManaged = settings.recover === 'failover' && !world.isOriginal
  const node = await world.start({ ...settings, isManaged })
  const image = await world.images.image('v6')
  await node.cri.pull(image.reference)
  const pod = await node.cri.runPod()
  const first = await node.cri.start(pod, image.reference, READ_ON)
  assert.equal(await node.cri.exec(first, 'sha256sum /data/*'), image.sums)
  await using readers = await Readers.start(node, first)
  const begun: Array<readonly [what: string, at: number]> = []
  for (const [what, happen] of eventsOf(settings.recover, world)) {
    begun.push([what, Date.now()])
    await happen(node).catch((error: unknown) => {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error })
    })
    assert.equal(await node.cri.exec(first, 'sha256sum /data/*'), image.sums, `after: ${what}`)
  }
  const { rounds, wrongRounds, wrong, errors, longestMs, longestUntil } = await readers.stop()
  assert.deepEqual([wrong, errors, wrongRounds], [[], [], 0], `of ${rounds} rounds`)
  if (settings.recover === 'restart' && (world.isOriginal || !world.hasKeeper)) {
    const { pid } = await node.daemon()
    await killProcess(pid)
    await node.successor(pid)
    await node.cri.stopAndRemove(first)
  }
  const again = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'], 'again')
  assert.equal(await node.cri.exec(again, 'sha256sum /data/*'), image.sums)
  await node.cri.removeAll()
  await isEmptied(node)
  if (isManaged)
    assert.deepEqual(await node.keptSessions(), settings.mode === 'shared' ? [(await node.daemon()).id] : [])
  // The original looks for the process that it started, and leaves the mount of the one that followed.
  if (settings.recover !== 'none' || !world.isOriginal) await isStopped(node)
  const cause = begun.findLast(([, at]) => at <= longestUntil)?.[0] ?? 'before all'
  return `${rounds} rounds, longest read ${Math.round(longestMs)} ms: ${cause}`
}

/** Waits until it serves again, and, where the snapshotter keeps its state, until that has come. */
async function killDaemon(node: TestNode): Promise<void> {
  const [before, kept] = [await node.daemon(), statesKept(node)]
  await killProcess(before.pid)
  await serves(node, before.pid)
  if (kept > 0) await until('the state', () => statesKept(node) > kept || undefined)
}

async function serves(node: TestNode, formerPid: number): Promise<void> {
  await until(`a daemon after ${formerPid}`, async () => {
    const daemon = await node.daemon()
    return !isAlive(formerPid) && (await node.state(daemon)) === 'RUNNING' ? true : undefined
  })
}

async function upgrade(node: TestNode): Promise<void> {
  const before = await node.daemon()
  const request = { nydusd_path: join(node.path, 'nydusd-new'), version: 'any', policy: 'rolling' }
  const { status, text } = await node.system('PUT', '/api/v1/daemons/upgrade', request)
  assert.equal(status, 200, text)
  const { api_socket: socket } = await node.successor(before.pid)
  assert.match(socket, /api1\.sock$/)
}

async function restartSnapshotter(node: TestNode, signal: NodeJS.Signals): Promise<void> {
  const kept = statesKept(node)
  await node.restartSnapshotter(signal)
  if (kept > 0) await until('the state', () => statesKept(node) > kept || undefined)
}

async function killBoth(node: TestNode): Promise<void> {
  const { pid } = await node.daemon()
  await Promise.all([killProcess(pid), node.stopSnapshotter('SIGKILL')])
  await node.startSnapshotterAgain()
  await serves(node, pid)
}

async function killService(node: TestNode): Promise<void> {
  const { pid, id } = await node.daemon()
  assert.deepEqual(await node.keptSessions(), [id])
  const holder = Number(readFileSync(join(node.root, 'supervisor', `${id}.holder`), 'utf8'))
  assert.ok(isAlive(holder))
  await Promise.all([node.stopSnapshotter('SIGKILL'), ...[pid, holder].map((each) => killProcess(each))])
  await node.startSnapshotterAgain()
  await serves(node, pid)
}

/** How often the original's snapshotter got the state of a daemon. A message that it waits for crosses one that it sends, if it is asked for both. */
function statesKept(node: TestNode): number {
  return node.log('snapshotter').split(' receives states.').length - 1
}
