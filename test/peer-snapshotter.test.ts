/** The original's containerd-nydus-grpc over our nydusd, and ours over the original's nydusd, under a real containerd; NYDUS_PEER_DIR names the folder with them. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe } from 'node:test'
import type { NodeCase } from './node/case.ts'
import { CASES } from './node/cases.ts'
import type { Programs } from './node/node.ts'
import { built, testCases, whyNoTest } from './node/tested.ts'
import { modestPeer, noPeer, peers } from './peer-daemon.ts'

const folder = mkdtempSync(join(tmpdir(), 'peer-nydusd-'))
after(() => rmSync(folder, { recursive: true, force: true }))

function casesNamed(...names: readonly string[]): readonly NodeCase[] {
  return CASES.filter((one) => names.some((name) => one.name.startsWith(name)))
}

function whyNot(tool: string, programs: Programs): string | false {
  if (noPeer !== undefined) return noPeer
  return existsSync(join(peers, tool)) ? whyNoTest(programs) : `no ${tool} in ${peers}`
}

describe("the original's snapshotter over our nydusd", () => {
  const programs = { snapshotter: join(peers, 'containerd-nydus-grpc'), nydusd: built('nydusd') }
  testCases(casesNamed('deaths-', 'given-back-'), programs, whyNot('containerd-nydus-grpc', programs))
})

describe("our snapshotter over the original's nydusd", () => {
  const programs = { snapshotter: built('containerd-nydus-grpc'), nydusd: modestPeer(join(peers, 'nydusd'), folder) }
  testCases(casesNamed('pod-v5', 'pod-zran', 'deaths-failover', 'reboot-shared'), programs, whyNot('nydusd', programs))
})
