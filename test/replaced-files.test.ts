/** A package upgrade replaces the program's files while nydusd runs: threads that it would start from then on are of another build, or their files are gone. */
import assert from 'node:assert/strict'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { DEFAULTS } from '../src/builder/testing.ts'
import { localConfig, Scratch, TestDaemon } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { randomBytes, randomOf } from './random.ts'
import { buildInto } from './random-images.ts'

const root = join(import.meta.dirname, '..')
const isBuilt = existsSync(join(root, 'dist/nydusd.cjs'))
const skip = whyNoFuse() ?? (isBuilt ? false : 'dist/ is not built (npm run build)')
const LATER = ['decode-worker.cjs', 'files-worker.cjs', 'fuse-worker.cjs']
const BUSY_MS = 120_000
const LOG_MS = 60_000

/** As the next version's file is: the same but for the build that it is of. */
function replace(path: string): void {
  const text = readFileSync(path, 'utf8')
  const other = text.replace(/(?<=BUILD=[^;]{0,20}")[0-9a-f]{16}(?=")/, 'f'.repeat(16))
  assert.notEqual(other, text, `${path} names its build`)
  writeFileSync(path, other)
}

/** A nydusd of its own copy of dist/, with an image of one file of 3 MiB, of which nothing was read. */
async function serving(scratch: Scratch): Promise<{ daemon: TestDaemon; dist: string; content: Buffer }> {
  const home = scratch.folder('home')
  cpSync(join(root, 'dist'), join(home, 'dist'), { recursive: true })
  for (const part of ['node_modules', 'package.json']) symlinkSync(join(root, part), join(home, part))
  const source = scratch.folder('source')
  const content = randomBytes(randomOf(7), 3 << 20)
  writeFileSync(join(source, 'data'), content)
  const image = scratch.folder('image')
  const { path } = await buildInto(image, { kind: 'directory', path: source }, { ...DEFAULTS, chunkSize: 0x10_0000 })
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, localConfig(join(image, 'blobs'), scratch.cache))
  const socket = join(scratch.path, 'api.sock')
  const from = ['--bootstrap', path, '--config', config, '--mountpoint', scratch.mnt]
  const daemon = new TestDaemon([...from, '--apisock', socket, '--rlimit-nofile', '0', '--thread-num', '2'], socket, {
    cwd: scratch.path,
    env: {},
    program: join(home, 'dist/nydusd.cjs'),
  })
  await scratch.own(daemon).ready()
  return { daemon, dist: join(home, 'dist'), content }
}

/** Waits until the daemon has logged it; what it writes is read between two steps of the test. */
async function logged(daemon: TestDaemon, line: RegExp): Promise<void> {
  for (const deadline = performance.now() + LOG_MS; !line.test(daemon.log); await sleep(20))
    assert.ok(performance.now() < deadline, `no line ${line} in the log:\n${daemon.log}`)
}

/** Keeps the mount busy until the daemon has wanted another thread for it. */
async function untilBusy(at: string, daemon: TestDaemon): Promise<void> {
  const deadline = performance.now() + BUSY_MS
  for (let round = 0; !daemon.log.includes('started to serve '); round++) {
    assert.ok(performance.now() < deadline, `no second FUSE thread was wanted:\n${daemon.log}`)
    const names = Array.from({ length: 400 }, (_, name) => join(at, `absent-${round}-${name}`))
    await Promise.allSettled(names.map((name) => stat(name)))
  }
}

for (const [how, change] of [
  ['of another build', replace],
  ['gone', (path: string): void => rmSync(path)],
] as const)
  test(`files of threads that are ${how}: reads go on, the log says why and what to do`, { skip }, async () => {
    await using scratch = new Scratch()
    const { daemon, dist, content } = await serving(scratch)
    for (const file of LATER) change(join(dist, file))
    assert.ok(readFileSync(join(scratch.mnt, 'data')).equals(content), 'decoded without the threads')
    const said = (what: string): RegExp =>
      new RegExp(`can be started to ${what}.*(build f{16}|${dist.replaceAll(' ', '.')}).*restart it`)
    await logged(daemon, said('decode'))
    await untilBusy(scratch.mnt, daemon)
    await logged(daemon, said('serve '))
    mkdirSync(join(scratch.path, 'shared'))
    const share = { source: join(scratch.path, 'shared'), fs_type: 'passthrough_fs', config: '' }
    for (const again of ['first', 'again']) {
      const refused = await daemon.api('POST', '/api/v1/mount?mountpoint=/shared', share)
      assert.notEqual(refused.status, 204, again)
    }
    await logged(daemon, said('serve shared directories'))
    assert.ok(readFileSync(join(scratch.mnt, 'data')).equals(content), 'and still serves')
    assert.match((await daemon.api('GET', '/metrics')).text, /^nydusd_fuse_threads 1$/m)
    assert.equal(await daemon.stop(), 0, daemon.log)
  })

test('files of the same build: the threads start, and nothing is said', { skip }, async () => {
  await using scratch = new Scratch()
  const { daemon, content } = await serving(scratch)
  assert.ok(readFileSync(join(scratch.mnt, 'data')).equals(content))
  assert.doesNotMatch(daemon.log, /can be started/)
  assert.equal(await daemon.stop(), 0, daemon.log)
})
