/** Sessions change hands between the original's nydusd and this one, under readers; NYDUS_PEER_DIR names the folder with its programs. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { decodeState, encodeState } from '../src/daemon/handover/session-state.ts'
import { TestSupervisor } from '../src/daemon/handover/test-supervisor.ts'
import {
  CARRIED_BLOBS,
  callApi,
  carriedImages,
  differencesSeenApart,
  localConfig,
  Scratch,
} from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'

const peers = process.env['NYDUS_PEER_DIR']
const skip = whyNoFuse() ?? (peers === undefined ? 'NYDUS_PEER_DIR is not set' : false)
const OURS = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  join(import.meta.dirname, '../src/cli/nydusd/index.ts'),
]
const IMAGES = carriedImages().filter(({ isInlined, blobs }) => !isInlined && blobs.length > 0)
const FILE = 'sizes/65536'

type Side = 'ours' | 'original'

/** The original shows the time of the mount in the place of 1970. */
async function differences(at: string, tree: string): Promise<unknown> {
  const found = (await differencesSeenApart(at, tree)) as string[]
  return found.filter((line) => !/: mtime is \d+, wanted 0$/.test(line))
}

class Field extends Scratch {
  readonly supervisor = new TestSupervisor(join(this.path, 'supervisor.sock'))
  readonly #all: ChildProcess[] = []
  log = ''

  async daemon(side: Side, name: string, args: readonly string[] = []): Promise<Running> {
    const [program = '', ...first] = side === 'ours' ? OURS : [join(peers ?? '', 'nydusd')]
    const socket = join(this.path, `${name}.sock`)
    const common = ['--mountpoint', this.mnt, '--apisock', socket, '--rlimit-nofile', '0']
    const supervised = ['--id', 'x', '--supervisor', this.supervisor.path]
    const child = spawn(program, [...first, ...common, ...supervised, ...args], { cwd: this.path })
    this.#all.push(child)
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (part: Buffer) => (this.log += part.toString()))
    for (let tries = 0; tries < 6000; tries++) {
      assert.equal(child.exitCode, null, this.log)
      try {
        await callApi(socket, 'GET', '/api/v1/daemon')
        return new Running(child, socket)
      } catch {
        await sleep(10) // the socket is not there yet
      }
    }
    throw new Error(this.log)
  }

  /** The old one leaves when the new one is ready, as containerd-nydus-grpc does it. */
  async handOver(from: Running, to: Running): Promise<void> {
    assert.equal(await this.supervisor.offer(() => to.put('fuse/takeover')), '', this.log)
    await from.put('exit')
    await from.ended()
    assert.equal(await to.put('start'), '', this.log)
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#all)
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
    this.supervisor[Symbol.dispose]()
    await super[Symbol.asyncDispose]()
  }
}

class Running {
  readonly child: ChildProcess
  readonly socket: string

  constructor(child: ChildProcess, socket: string) {
    this.child = child
    this.socket = socket
  }

  /** The message of a refusal, or nothing. */
  async put(call: string): Promise<string> {
    return (await callApi(this.socket, 'PUT', `/api/v1/daemon/${call}`)).text
  }

  async ended(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit')
  }
}

for (const [from, to] of [
  ['original', 'ours'],
  ['ours', 'original'],
] as const)
  test(`${to} takes over from ${from}, and ${from} back from ${to}: upgrade, then kill`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field()
    const first = await field.daemon(from, 'first')
    for (const [index, image] of IMAGES.entries()) {
      const config = localConfig(CARRIED_BLOBS, field.folder(`cache${index}`), { enable_xattr: true })
      const body = JSON.stringify({ fs_type: 'rafs', source: image.bootstrap, config })
      const answer = await callApi(first.socket, 'POST', `/api/v1/mount?mountpoint=/deep/${index}`, body)
      assert.equal(answer.status, 204, answer.text)
    }
    const at = (index: number): string => join(field.mnt, `deep/${index}`)
    const path = join(at(0), FILE)
    const file = await open(path)
    const before = await file.stat({ bigint: true })
    const half = await file.read(Buffer.alloc(30_000), 0, 30_000, 0)

    const { state } = await field.supervisor.fetch(() => first.put('fuse/sendfd'))
    const decoded = decodeState(state)
    assert.equal(decoded.mounts.length, IMAGES.length)
    if (from === 'original') assert.deepEqual(encodeState(decoded), state)
    const second = await field.daemon(to, 'second', ['--upgrade'])
    await field.handOver(first, second)

    assert.equal((await file.stat({ bigint: true })).ino, before.ino)
    assert.equal((await stat(path, { bigint: true })).ino, before.ino)
    const rest = await file.read(Buffer.alloc(65_536), 0, 65_536, 0)
    assert.ok(rest.buffer.subarray(0, 30_000).equals(half.buffer))
    await file.close()
    for (const [index, image] of IMAGES.entries()) assert.deepEqual(await differences(at(index), image.tree), [])

    // and back, after a death: the same command line on the same socket waits for it
    await field.supervisor.fetch(() => second.put('fuse/sendfd'))
    second.child.kill('SIGKILL')
    await second.ended()
    const third = await field.daemon(from, 'second')
    assert.match((await callApi(third.socket, 'GET', '/api/v1/daemon')).text, /"INIT"/)
    assert.equal(await field.supervisor.offer(() => third.put('fuse/takeover')), '', field.log)
    assert.equal(await third.put('start'), '', field.log)
    for (const [index, image] of IMAGES.entries()) assert.deepEqual(await differences(at(index), image.tree), [])
    third.child.kill('SIGTERM')
    await third.ended()
  })
