/** The demo as a user runs it, with a small image of another registry and a fast link. */
import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { whyNoFuse } from '../src/kernel/index.ts'
import { type RegistryServer, startRegistry } from '../src/registry/index.ts'
import { pushImage } from './image.ts'
import type { LayerEntry } from './layers.ts'
import type { DemoResult } from './result.ts'

const MAIN = join(import.meta.dirname, 'main.ts')
const built = existsSync(join(import.meta.dirname, '../dist/nydusd.cjs'))
const skip = whyNoFuse() ?? (built ? false : 'dist/ is not built (npm run build)')

const whyNotNobody = process.geteuid?.() !== 0 ? 'changing the user needs root' : built ? false : 'dist/ is not built'

// A space in the name: everything must work below such a folder.
const folder = mkdtempSync(join(tmpdir(), 'nydus demo test '))
let registry: RegistryServer
let image = ''

before(async () => {
  registry = await startRegistry({ root: join(folder, 'registry'), host: '127.0.0.1', port: 0 })
  const layers = [
    { name: 'programs', entries: programs(['/bin/sh', '/bin/cat', '/bin/sleep']) },
    {
      name: 'text',
      entries: [
        { path: 'etc/greeting', text: 'hello from below\n' },
        { path: 'etc/gone', text: '' },
      ],
    },
    { name: 'change', entries: [{ path: 'etc/gone', deleted: true } as const] },
  ]
  const entrypoint = ['/bin/sh', '-c', '[ -e /etc/gone ] || cat /etc/greeting; sleep 60']
  image = (await pushImage({ layers, registry: registry.url, name: 'test/app:1', entrypoint })).reference
})
after(async () => {
  await registry.close()
  rmSync(folder, { recursive: true, force: true })
})

/** The programs and the libraries that they load. */
function programs(paths: readonly string[]): LayerEntry[] {
  const files = new Set(paths)
  for (const path of paths)
    for (const [, library] of execFileSync('ldd', [path], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g))
      files.add(library ?? '')
  return [...files].map((path) => ({ path: path.slice(1), from: realpathSync(path) }))
}

interface Running {
  readonly child: ChildProcess
  readonly temporary: string
  /** Of stdout, when it has ended. */
  readonly output: Promise<string>
  readonly errors: () => string
}

function start(args: readonly string[]): Running {
  return run([MAIN, ...args], mkdtempSync(join(folder, 'tmp ')))
}

function run(args: readonly string[], temporary: string, env: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    env: { ...process.env, ...env, TMPDIR: temporary },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let text = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part))
  child.stderr.setEncoding('utf8').on('data', (part: string) => (errors += part))
  return { child, temporary, output: once(child, 'close').then(() => text), errors: () => errors }
}

/** What speaks of the folder in the tables of mounts and processes, and what is left in it. */
function leftIn(temporary: string): string[] {
  const escaped = temporary.replaceAll(' ', '\\040')
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(escaped))
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(temporary)
      } catch {
        return false // it has ended meanwhile
      }
    })
  const files = readdirSync(temporary).filter((name) => name.startsWith('nydus-demo-'))
  return [...mounts, ...processes, ...files]
}

test('an image of a registry starts by a plain pull and lazily; --json tells all of it; nothing is left', {
  skip,
}, async () => {
  const { child, temporary, output, errors } = start([image, '--bandwidth', '1000', '--rtt', '1', '--json'])
  const result = JSON.parse((await output) || `"${errors()}"`) as Required<DemoResult>
  assert.equal(child.exitCode, 0, errors())
  assert.deepEqual(result.network, { bandwidth_mbit: 1000, round_trip_ms: 1 })
  assert.equal(result.image.reference, image)
  assert.equal(result.image.layers, 3)
  for (const way of [result.eager, result.lazy]) {
    assert.ok(way.mounted_s > 0 && way.ready_s > way.mounted_s)
    assert.ok(way.bytes > 0 && way.requests >= 3 && way.connections >= 1)
    const sum = Object.values(way.phases).reduce((total, seconds) => total + seconds, 0)
    assert.ok(Math.abs(sum - way.ready_s) < 1e-6, 'the phases add up to the whole')
  }
  // Manifest, config and three layers.
  assert.equal(result.eager.requests, 5)
  assert.ok(result.eager.bytes > result.image.compressed_bytes)
  assert.equal(result.lazy.prefetch, false)
  assert.ok(result.speedup > 0 && result.program_s > 0)
  assert.deepEqual(leftIn(temporary), [])
})

test('a command takes the place of what the image says, and its failure is told with its words', { skip }, async () => {
  const wanted = [image, '--bandwidth', '1000', '--rtt', '1', '--', '/bin/sh', '-c', 'exit 3']
  const { child, temporary, output, errors } = start(wanted)
  assert.equal(await output, '')
  assert.equal(child.exitCode, 1)
  assert.match(errors(), /ended with 3 before it was ready: it said nothing/)
  assert.deepEqual(leftIn(temporary), [])
})

for (const [moment, sign] of [
  ['while the container starts lazily', 'starting it lazily'],
  ['while the plain pull runs', 'starting it by a plain pull'],
] as const)
  test(`Ctrl-C ${moment} leaves no mount, process or file`, { skip }, async () => {
    // A command that says nothing: the demo waits for it until it is interrupted.
    const command = ['/bin/sh', '-c', sign.includes('lazily') ? 'sleep 60' : '[ -e /tmp/x ] || echo up; sleep 60']
    const { child, temporary, output, errors } = start([image, '--bandwidth', '5', '--rtt', '50', '--', ...command])
    // Once: a second signal ends it on the spot.
    let isInterrupted = false
    child.stderr?.on('data', () => {
      if (isInterrupted || !errors().includes(sign)) return
      isInterrupted = true
      setTimeout(() => child.kill('SIGINT'), 200)
    })
    await output
    assert.equal(child.exitCode, 130, errors())
    assert.deepEqual(leftIn(temporary), [])
  })

test('Ctrl-C while the image is made leaves no mount, process or file', async () => {
  const { child, temporary, output } = start([])
  while (!readdirSync(temporary).some((name) => name.startsWith('nydus-demo-'))) await sleep(5)
  await sleep(300)
  child.kill('SIGINT')
  await output
  assert.equal(child.exitCode, 130)
  assert.deepEqual(leftIn(temporary), [])
})

test('who is not root gets the image converted and checked, and is told why nothing starts', {
  skip: whyNotNobody,
}, async (t) => {
  const temporary = mkdtempSync(join(folder, 'tmp '))
  execFileSync('chmod', ['a+rwx', folder, temporary])
  const args = JSON.stringify([MAIN, image, '--json'])
  const code = `process.setgid(65534); process.setuid(65534); process.argv.splice(1, 9, ...${args}); await import(process.argv[1])`
  const { child, output, errors } = run(['--input-type=module', '-e', code], temporary, { HOME: temporary })
  const text = await output
  if (child.exitCode !== 0 && errors().includes('EACCES')) return t.skip('the checkout is not readable for others')
  assert.equal(child.exitCode, 0, errors())
  const result = JSON.parse(text) as DemoResult
  assert.doesNotMatch(errors(), /cleaning up/)
  assert.match(result.skipped ?? '', /mounting needs root; run it as root/)
  assert.ok(result.prepare.check_s > 0)
  assert.equal(result.lazy, undefined)
  assert.deepEqual(leftIn(temporary), [])
})

test('a wrong flag, a wrong number or a missing image costs one line', async () => {
  for (const [args, words, code] of [
    [['--bandwidth', 'fast'], /--bandwidth must be a number/, 2],
    [['--nope'], /--nope/, 2],
    [[`127.0.0.1:${registry.port}/no/such:1`], /no\/such/, 1],
  ] as const) {
    const { child, temporary, output, errors } = start(args)
    await output
    assert.equal(child.exitCode, code)
    assert.match(errors(), words)
    assert.deepEqual(leftIn(temporary), [])
  }
})
