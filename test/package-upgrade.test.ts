/** What a user does with `apt upgrade`: the package's files are replaced under programs that run, the snapshotter is started again, and containers read all the while. */
import assert from 'node:assert/strict'
import {
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after } from 'node:test'
import { HOME, installedTree, readManifest, type TreeEntry } from '../scripts/package/tree.ts'
import { callApi } from '../src/daemon/testing.ts'
import type { NodeCase, World } from './node/case.ts'
import { isEmptied, isStopped } from './node/emptied.ts'
import { isAlive, killProcess, until } from './node/launched.ts'
import type { TestNode } from './node/node.ts'
import { READ_ON, Readers } from './node/readers.ts'
import { built, testCases, whyNoTest } from './node/tested.ts'

const root = join(import.meta.dirname, '..')
const whyNot = whyNoTest({ snapshotter: built('containerd-nydus-grpc'), nydusd: built('nydusd') })
const NEXT = '99.0.1'
/** The build's own name stands in all of its files: threads of another one are refused. */
const BUILD_NAME = /"[0-9a-f]{16}"/g

/** An installed package, whose files are replaced as dpkg does it: each by one with another name, which then takes its place. */
class Installed {
  readonly path = mkdtempSync(join(tmpdir(), 'upgraded-'))
  readonly version = readManifest(root).version
  #builds = 0

  bin(tool: string): string {
    return join(this.path, 'usr/bin', tool)
  }

  /** Another version than this one is another build each time. */
  install(version: string): void {
    this.#builds += 1
    for (const entry of installedTree(root)) {
      const at = join(this.path, entry.path)
      mkdirSync(dirname(at), { recursive: true })
      const fresh = `${at}.dpkg-new`
      this.#put(entry, version, fresh)
      renameSync(fresh, at)
    }
  }

  #put({ path, mode, content }: TreeEntry, version: string, at: string): void {
    if (content === 'directory') return
    if ('link' in content) symlinkSync(content.link, at)
    else if ('file' in content && !(path.startsWith(`${HOME}/dist/`) && version !== this.version))
      copyFileSync(content.file, at, constants.COPYFILE_FICLONE)
    else writeFileSync(at, 'text' in content ? content.text : this.#ofVersion(content.file, version))
    if (!('link' in content)) chmodSync(at, mode)
  }

  #ofVersion(bundle: string, version: string): string {
    const text = readFileSync(bundle, 'utf8')
    return text
      .replaceAll(`version:"${this.version}"`, `version:"${version}"`)
      .replaceAll(BUILD_NAME, `"${String(this.#builds).padStart(16, '0')}"`)
  }
}

async function versionOf(node: TestNode): Promise<string> {
  const { api_socket: socket } = await node.daemon()
  const { text } = await callApi(socket, 'GET', '/api/v1/daemon')
  return (JSON.parse(text) as { version: { package_ver: string } }).version.package_ver
}

async function survives(world: World, installed: Installed, recover: 'failover' | 'restart'): Promise<string> {
  installed.install(installed.version)
  const node = await world.start({ recover, mode: 'shared' })
  const image = await world.images.image('v6')
  await node.cri.pull(image.reference)
  const pod = await node.cri.runPod()
  const first = await node.cri.start(pod, image.reference, READ_ON)
  await using readers = await Readers.start(node, first)
  const reads = async (): Promise<void> => assert.equal(await node.cri.exec(first, 'sha256sum /data/*'), image.sums)
  await reads()
  const { pid } = await node.daemon()
  assert.equal(await versionOf(node), `v${installed.version}`)

  installed.install(NEXT)
  await reads()
  // what is asked of the old programs meanwhile is done, with threads and modules that they load only now
  const between = await node.cri.start(pod, image.reference, ['/bin/sleep', '1000'], 'between')
  assert.equal(await node.cri.exec(between, 'sha256sum /data/*'), image.sums)

  await node.restartSnapshotter('SIGTERM')
  await reads()
  if (recover === 'restart') await killProcess(pid) // its own keeper brings what is installed now
  await until('a daemon of the new version', async () => {
    return !isAlive(pid) && (await versionOf(node)) === `v${NEXT}` ? true : undefined
  })
  await reads()
  if (recover === 'failover') {
    const before = await node.daemon()
    installed.install(NEXT) // built again
    await node.restartSnapshotter('SIGKILL')
    await node.successor(before.pid)
    await reads()
  }
  const other = await world.images.image('v5')
  await node.cri.pull(other.reference)
  const last = await node.cri.start(pod, other.reference, ['/bin/sleep', '1000'], 'last')
  assert.equal(await node.cri.exec(last, 'sha256sum /data/*'), other.sums)
  const { rounds, wrongRounds, wrong, errors, longestMs } = await readers.stop()
  assert.deepEqual([wrong, errors, wrongRounds], [[], [], 0], `of ${rounds} rounds`)
  assert.doesNotMatch(node.log('snapshotter'), /\bERROR\b|level=error/)
  await node.cri.removeAll()
  await isEmptied(node)
  await isStopped(node)
  return `${rounds} rounds, longest read ${Math.round(longestMs)} ms`
}

const installed = new Installed()
after(() => rmSync(installed.path, { recursive: true, force: true }))
if (whyNot === false) installed.install(installed.version)
testCases(
  (['failover', 'restart'] as const).map(
    (recover): NodeCase => ({
      name: `upgrade-${recover}`,
      title: `recover_policy ${recover}: the package is upgraded under a container that reads`,
      run: async (world) => await survives(world, installed, recover),
    }),
  ),
  { snapshotter: installed.bin('containerd-nydus-grpc'), nydusd: installed.bin('nydusd') },
  whyNot,
)
