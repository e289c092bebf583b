/** Images that the kernel shows from a full cache, without a daemon. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountedTree, treeDifferences } from '../src/daemon/testing.ts'
import { unmount } from '../src/kernel/index.ts'
import { FILE, IMAGE, PLENTY_MS, until } from './daemons/field.ts'
import { BLOB, lent, skipReason, startField } from './daemons/kernel-field.ts'

const skip = await skipReason()
const options = { skip, timeout: PLENTY_MS }

/** Digests a file again and again, in another process. Not past the kernel's memory: that these mounts do not do. */
class DigestReader implements AsyncDisposable {
  readonly lines: string[] = []
  readonly #child: ChildProcess

  constructor(file: string) {
    const loop = 'while :; do sha256sum < "$1" || echo failed; done'
    this.#child = spawn('sh', ['-c', loop, 'sh', file], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.#child.stdout?.on('data', (text: Buffer) => this.lines.push(...text.toString().trim().split('\n')))
  }

  async more(rounds: number): Promise<void> {
    const from = this.lines.length
    await until('reads', () => (this.lines.length >= from + rounds ? true : undefined))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL')
    await once(this.#child, 'close')
  }
}

test(
  'an image is shown once to all its containers, until the last one is gone; the next has it without a check',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    const users = [field.container('one'), field.container('two')]
    const at = await lent(started, users[0] ?? 0)
    assert.equal(await field.shown.lend(request, users[1] ?? 0), at)
    assert.deepEqual(field.erofs, [at])
    assert.deepEqual(treeDifferences(at, IMAGE.tree), [])
    const [told] = field.shown.list()
    assert.deepEqual([told?.mountpoint, told?.blobs, told?.users], [at, [BLOB], users])
    for (const user of users) {
      assert.deepEqual(field.erofs, [at])
      await field.shown.giveBack(user)
    }
    assert.deepEqual(field.erofs, [])
    assert.equal(await field.shown.lend(request, field.container('three')), at)
    assert.deepEqual(treeDifferences(at, IMAGE.tree), [])
    assert.equal(field.lines.filter((line) => line.includes('were verified')).length, 1)
    await field.shown.forget(request.snapshot.id)
    assert.deepEqual(field.erofs, [])
    assert.deepEqual(readdirSync(join(field.settings.root, 'erofs')), [])
    assert.equal(existsSync(field.cached('.blob.pins')), false)
  },
)

for (const mode of ['shared', 'dedicated'] as const)
  test(
    `${mode}: the kernel shows what nydusd shows, and goes on when all daemons and the snapshotter are gone`,
    options,
    async () => {
      await using started = await startField(mode)
      const { field, request } = started
      const { mountpoint } = await field.ensure(request.snapshot)
      const at = await lent(started, field.container('one'))
      assert.deepEqual(mountedTree(at), mountedTree(mountpoint))
      await using reader = new DigestReader(join(at, FILE))
      await reader.more(2)
      for (const pid of field.daemonProcesses()) process.kill(pid, 'SIGKILL')
      await reader.more(2)
      await field.stop()
      await reader.more(2)
      await field.start()
      await field.startKernel()
      await reader.more(2)
      assert.equal(new Set(reader.lines).size, 1, [...new Set(reader.lines)].join())
      assert.deepEqual(field.erofs, [at])
      const users = field.shown.list()[0]?.users ?? []
      assert.equal(await field.shown.lentTo(request, users[0] ?? 0, AbortSignal.timeout(PLENTY_MS)), at)
    },
  )

test('owners are shifted for containers with ids of their own, in a mount of their own', options, async () => {
  await using started = await startField()
  const { field, request } = started
  const plain = await lent(started, field.container('plain'))
  const shifted = { ...started, request: { ...request, idMapping: { container: 0, host: 100_000, size: 1000 } } }
  const at = await lent(shifted, field.container('shifted'))
  const owner = (id: unknown): number => (Number(id) < 1000 ? 100_000 + Number(id) : Number(id))
  const wanted = mountedTree(plain).map((entry) => ({ ...entry, uid: owner(entry['uid']), gid: owner(entry['gid']) }))
  assert.deepEqual(mountedTree(at), wanted)
  assert.deepEqual(field.erofs.sort(), [plain, at].sort())
})

test(
  'ids that are mapped from the same number on, but not as many of them, are not shown by that mount',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    const mapped = (size: number): typeof started => ({
      ...started,
      request: { ...request, idMapping: { container: 0, host: 100_000, size } },
    })
    const [one, other] = [field.container('one'), field.container('other')]
    const at = await lent(mapped(1000), one)
    const before = mountedTree(at)
    for (let round = 0; round < 2; round += 1) {
      assert.equal(await field.shown.lend(mapped(10).request, other), undefined)
      await field.shown.settled()
    }
    assert.deepEqual(mountedTree(at), before)
    assert.equal(await field.shown.lend(mapped(1000).request, field.container('third')), at)
    await field.shown.forget(request.snapshot.id)
    assert.equal(await lent(mapped(10), other), at)
  },
)

test(
  'after a reboot a container that was there has its image again, and one that never had it has not',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    const [one, other] = [field.container('one'), field.container('other')]
    const at = await lent(started, one)
    await field.stop()
    await unmount(at)
    await field.start()
    await field.startKernel()
    const signal = AbortSignal.timeout(PLENTY_MS)
    assert.equal(await field.shown.lentTo(request, other, signal), undefined)
    assert.deepEqual(field.erofs, [])
    assert.equal(await field.shown.lentTo(request, one, signal), at)
    assert.deepEqual(treeDifferences(at, IMAGE.tree), [])
  },
)

test('what cannot be noted is not lent: the container starts by nydusd, and the log says why', options, async () => {
  await using started = await startField()
  const { field, request } = started
  assert.equal(await field.shown.lend(request, field.container('one')), undefined)
  await field.shown.settled()
  writeFileSync(join(field.settings.root, 'erofs', String(request.snapshot.id), 'users'), 'in the way')
  assert.equal(await field.shown.lend(request, field.container('two')), undefined)
  assert.match(field.lines.join('\n'), /warn .*is served by nydusd: EEXIST/)
})

test('a check whose result cannot be kept leaves no pins', options, async () => {
  await using started = await startField()
  const { field, request } = started
  assert.equal(await field.shown.lend(request, field.container('one')), undefined)
  mkdirSync(join(field.settings.root, 'erofs', String(request.snapshot.id), 'checked.json'), { recursive: true })
  await field.shown.settled()
  assert.match(field.lines.join('\n'), /warn .*is served by nydusd: .*checked\.json/)
  assert.equal(existsSync(field.cached('.blob.pins')), false)
})

test(
  'what does not belong there is taken away at the next start, and does not keep it from that',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    const at = await lent(started, field.container('one'))
    await field.stop()
    const directory = join(field.settings.root, 'erofs')
    writeFileSync(join(directory, 'file'), '')
    mkdirSync(join(directory, '9999'))
    writeFileSync(join(directory, '9999', 'users'), '')
    await field.start()
    await field.startKernel()
    assert.deepEqual(readdirSync(directory), [String(request.snapshot.id)])
    assert.deepEqual(field.erofs, [at])
  },
)

test('switched off, everything of it is taken away', options, async () => {
  await using started = await startField()
  const { field } = started
  const at = await lent(started, field.container('one'))
  await field.stop()
  assert.deepEqual(field.erofs, [at])
  await field.start()
  assert.equal(await field.startKernel('never'), undefined)
  assert.deepEqual([field.erofs, existsSync(join(field.settings.root, 'erofs'))], [[], false])
  assert.equal(existsSync(field.cached('.blob.pins')), false)
})

test(
  'left-overs of a process that was killed are taken away: halves, mounts of images that are gone, pins of nobody',
  options,
  async () => {
    await using started = await startField()
    const { field, request } = started
    const at = await lent(started, field.container('one'))
    const user = field.container('another')
    await field.shown.lend(request, user)
    await field.stop()
    rmSync(join(field.settings.root, 'erofs', String(request.snapshot.id), 'checked.json'))
    await field.start()
    await field.startKernel()
    assert.deepEqual([field.erofs, existsSync(at), existsSync(field.cached('.blob.pins'))], [[], false, false])
    assert.equal(await field.shown.lentTo(request, user, AbortSignal.timeout(PLENTY_MS)), undefined)
  },
)

test(
  'by default images are shown only where containers cannot tell, and the log says what is not so',
  options,
  async () => {
    await using started = await startField()
    const { field } = started
    const at = await lent(started, field.container('one'))
    const direct = isOpenedDirectly(join(at, FILE))
    await field.stop()
    await field.start()
    field.lines.length = 0
    const kernel = await field.startKernel('alike')
    assert.equal(kernel !== undefined, direct)
    assert.deepEqual(field.erofs, direct ? [at] : [])
    if (!direct) assert.match(field.lines.join(), /O_DIRECT.*enable_erofs_for_cached = true under \[snapshot\]/)
  },
)

function isOpenedDirectly(path: string): boolean {
  try {
    closeSync(openSync(path, constants.O_RDONLY | constants.O_DIRECT))
    return true
  } catch {
    return false
  }
}
