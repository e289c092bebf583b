import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ContainerdClient, Snapshots } from '../src/containerd/index.ts'
import { Images } from '../test/node/images.ts'
import { type Programs, TestNode } from '../test/node/node.ts'
import { findRuntime, type Runtime } from '../test/node/runtimes.ts'
import { DebianPackages } from '../test/node/debian.ts'
import { whyNoNode } from '../test/node/why-no-node.ts'
import { modestPeer } from '../test/peer-daemon.ts'
import { interleave, memoryOf, type Probe } from './measure.ts'
import { OURS, peerTools } from './peers.ts'
import type { Report } from './report.ts'

const ROUNDS = 7
const SNAPSHOTS = 500
const MOST_MB = 120
const SLEEP = ['/bin/sleep', '1000']

/** From a pull to a container that runs, on a node that has run others; and the memory that a snapshotter takes. */
export async function benchNode(report: Report, signal: AbortSignal): Promise<void> {
  report.part('a node: containerd, the snapshotter and nydusd')
  const hindrance = whyNoNode()
  if (hindrance !== undefined) return report.note(`left out: ${hindrance}`)
  const folder = mkdtempSync(join(tmpdir(), 'bench-node-'))
  try {
    await using images = await Images.start(folder)
    const runtime = await findRuntime('system', new DebianPackages(folder))
    if (typeof runtime === 'string') return report.note(`left out: ${runtime}`)
    const peer = peerPrograms(folder)
    const ours = { snapshotter: join(OURS.nydusd, '../containerd-nydus-grpc'), nydusd: OURS.nydusd }
    await pullToRunning(report, { ours, peer, images, runtime }, signal)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function peerPrograms(folder: string): Programs | undefined {
  const nydusd = peerTools()?.nydusd
  if (nydusd === undefined) return undefined
  return { snapshotter: join(nydusd, '../containerd-nydus-grpc'), nydusd: modestPeer(nydusd, folder) }
}

interface Parts {
  readonly ours: Programs
  readonly peer: Programs | undefined
  readonly images: Images
  readonly runtime: Runtime
}

async function pullToRunning(report: Report, parts: Parts, signal: AbortSignal): Promise<void> {
  await using ours = await startedNode(parts.ours, parts)
  await using peer = parts.peer === undefined ? undefined : await startedNode(parts.peer, parts)
  const run = (node: TestNode) => async (): Promise<number> => {
    signal.throwIfAborted()
    return await runOnce(node, parts.images)
  }
  const contenders: Record<string, Probe> =
    peer === undefined ? { ours: run(ours) } : { ours: run(ours), peer: run(peer) }
  await interleave(contenders, 1) // it warms them up
  const seconds = await interleave(contenders, ROUNDS)
  report.figure({
    what: 'pull to running, lazy image',
    unit: 's',
    ours: seconds['ours'] ?? Number.NaN,
    peer: seconds['peer'],
    target: { ratioAtMost: 1 },
  })
  const [own, other] = [await memoryWithSnapshots(ours), peer && (await memoryWithSnapshots(peer))]
  report.figure({
    what: `memory, ${SNAPSHOTS} snapshots`,
    unit: 'MB',
    ours: own,
    peer: other,
    target: { atMost: MOST_MB },
  })
}

async function startedNode(programs: Programs, { images, runtime }: Parts): Promise<TestNode> {
  const pause = await images.image('pause')
  return await TestNode.start({
    mode: 'shared',
    recover: 'failover',
    runtime,
    programs,
    pauseImage: pause.reference,
    registryHost: images.registry.host,
  })
}

/** Seconds from the pull of an image that the node does not have until its container runs and has read a file. */
async function runOnce(node: TestNode, images: Images): Promise<number> {
  const image = await images.image('v6')
  const pod = await node.cri.runPod()
  const from = performance.now()
  await node.cri.pull(image.reference)
  const id = await node.cri.start(pod, image.reference, SLEEP)
  await node.cri.exec(id, 'cat /data/00')
  const seconds = (performance.now() - from) / 1000
  await node.cri.stopAndRemove(id)
  await node.cri.removePod(pod)
  await node.cri.removeImage(image.reference)
  return seconds
}

/** Megabytes of the snapshotter's process. */
async function memoryWithSnapshots(node: TestNode): Promise<number> {
  const client = new ContainerdClient(join(node.path, 's.sock'), { namespace: 'bench', timeoutMs: 60_000 })
  try {
    const snapshots = client.service(Snapshots)
    for (let index = 0; index < SNAPSHOTS; index += 1) {
      await snapshots.prepare({ key: `bench/${index}/active` })
      await snapshots.commit({ key: `bench/${index}/active`, name: `bench/${index}/layer` })
    }
  } finally {
    client.close()
  }
  return memoryOf(node.snapshotterPid).rss / 1e6
}
