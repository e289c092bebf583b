import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ContainerdClient, Snapshots } from '../../containerd/index.ts'
import { mountFuse, unmount, whyNoFuse } from '../../kernel/index.ts'
import { DatagramReceiver } from '../../kernel/testing/index.ts'

const PROGRAM = join(import.meta.dirname, 'index.ts')
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM] as const
/** Nothing is mounted in these tests: any program stands for nydusd. */
const MODE = ['--daemon-mode', 'none']

/** Why it cannot serve here, or false. */
const skip = process.geteuid?.() === 0 ? false : "its socket is root's"

class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'grpc-'))
  readonly root = join(this.folder, 'r')
  readonly address = join(this.folder, 'n.sock')
  readonly #children: ChildProcess[] = []

  constructor() {
    writeFileSync(
      join(this.folder, 'template.json'),
      '{"device": {"backend": {"type": "registry", "config": {}}, "cache": {"type": "blobcache"}}, "mode": "direct"}',
    )
  }

  flags(): string[] {
    return [
      '--root',
      this.root,
      '--address',
      this.address,
      '--nydusd-config',
      join(this.folder, 'template.json'),
      ...MODE,
    ]
  }

  start(...args: string[]): ChildProcess & { readonly lines: string[]; until(what: RegExp): Promise<void> } {
    const [node, ...rest] = NODE
    const child = spawn(node, [...rest, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.push(child)
    const lines: string[] = []
    let told: (() => void) | undefined
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (part: Buffer) => {
        lines.push(...part.toString().split('\n').filter(Boolean))
        told?.()
      })
    child.once('exit', () => told?.())
    const until = async (what: RegExp): Promise<void> => {
      while (!lines.some((line) => what.test(line))) {
        if (child.exitCode !== null) throw new Error(`ended with ${child.exitCode}:\n${lines.join('\n')}`)
        await new Promise<void>((resolve) => (told = resolve))
      }
    }
    return Object.assign(child, { lines, until })
  }

  async count(): Promise<number> {
    const client = new ContainerdClient(this.address, { namespace: '', timeoutMs: 30_000 })
    try {
      let count = 0
      for await (const { info } of client.service(Snapshots).list({})) count += info.length
      return count
    } finally {
      client.close()
    }
  }

  async prepare(key: string): Promise<void> {
    const client = new ContainerdClient(this.address, { namespace: '', timeoutMs: 30_000 })
    await client.service(Snapshots).prepare({ key })
    client.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children)
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await once(child, 'exit')
      }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

function run(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const [node, ...rest] = NODE
  return spawnSync(node, [...rest, ...args], { encoding: 'utf8', timeout: 120_000 })
}

test("the version is told in upstream's four lines", () => {
  const { status, stdout } = run('--version')
  assert.equal(status, 0)
  assert.match(
    stdout,
    /^Version: {5}v\d+\.\d+\.\d+\nRevision: {4}nydus-node-\S+\nGo version: {2}node v\d\S+\nBuild time: {2}\S+\n$/,
  )
})

test('it serves until SIGTERM, ends with 0, and the next one finds what it kept', { skip }, async () => {
  await using place = new Place()
  const first = place.start(...place.flags(), '--log-to-stdout')
  await first.until(/ready after \d+ ms: serving/)
  assert.equal(statSync(place.address).mode & 0o777, 0o600)
  assert.equal(statSync(place.root).mode & 0o777, 0o700)
  await place.prepare('one')
  first.kill('SIGTERM')
  const [code] = (await once(first, 'exit')) as [number | null]
  assert.equal(code, 0, first.lines.join('\n'))
  assert.ok(!existsSync(place.address))
  const second = place.start(...place.flags(), '--log-to-stdout=false')
  const log = join(place.root, 'logs/nydus-snapshotter.log')
  while (!existsSync(log) || !readFileSync(log, 'utf8').includes('ready after')) {
    assert.equal(second.exitCode, null)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  assert.equal(await place.count(), 1)
  second.kill('SIGINT')
  assert.deepEqual(await once(second, 'exit'), [0, null])
  assert.deepEqual(second.lines, [])
})

test('a second one on the same root, or the same socket, refuses and leaves the first alone', { skip }, async () => {
  await using place = new Place()
  const first = place.start(...place.flags(), '--log-to-stdout')
  await first.until(/ready after/)
  const sameRoot = run(...place.flags(), '--address', join(place.folder, 'other.sock'))
  assert.deepEqual([sameRoot.status, /cannot be used multiple times/.test(sameRoot.stderr)], [2, true])
  const other = [
    '--root',
    place.root,
    '--address',
    join(place.folder, 'o.sock'),
    '--nydusd-config',
    join(place.folder, 'template.json'),
    ...MODE,
  ]
  const locked = run(...other)
  assert.equal(locked.status, 1)
  assert.match(locked.stderr, /^Error: .*another/s)
  const socket = run('--root', join(place.folder, 'r2'), ...place.flags().slice(2))
  assert.equal(socket.status, 1)
  assert.match(socket.stderr, /another process answers there/)
  assert.equal(await place.count(), 0)
})

test('what is wrong with the configuration ends it at once, and is told once', { skip }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'grpc-'))
  try {
    const file = join(folder, 'c.toml')
    writeFileSync(file, `version = 1\nroot = "${folder}/r"\n[daemon]\nthreads_number = "many"\n`)
    const wrong = run('--config', file)
    assert.deepEqual([wrong.status, wrong.stdout], [1, ''])
    assert.equal(
      wrong.stderr,
      `Error: cannot use ${file}: line 4: "daemon.threads_number" is "many", wanted is a whole number from 0 to 1024\n`,
    )
    const flag = run('--daemon-mode', 'all')
    assert.equal(flag.status, 2)
    assert.match(flag.stderr, /invalid value 'all' for '--daemon-mode <daemon-mode>'/)
    const template = run(
      '--root',
      join(folder, 'r'),
      '--address',
      join(folder, 's'),
      '--nydusd-config',
      join(folder, 'none.json'),
      '--log-to-stdout',
    )
    assert.equal(template.status, 1)
    assert.match(template.stderr, /none\.json/)
    assert.ok(!existsSync(join(folder, 's')), 'the socket stays')
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('flags of old versions are taken, with a warning; paths are relative to where they were given', {
  skip,
}, async () => {
  await using place = new Place()
  const child = place.start(
    ...place.flags(),
    '--log-to-stdout=true',
    '--enable-stargz=false',
    '--recover-policy',
    'none',
    '--enable-nydus-overlayfs',
  )
  await child.until(/ready after/)
  const warnings = child.lines.filter((line) => line.startsWith('warning: '))
  assert.deepEqual(
    warnings.map((line) => /--\S+/.exec(line)?.[0]),
    ['--recover-policy', '--enable-nydus-overlayfs'],
  )
})

test('the system API, metrics and profiles are where the configuration has them; the service manager is told', {
  skip,
}, async () => {
  await using place = new Place()
  const file = join(place.folder, 'c.toml')
  writeFileSync(
    file,
    `version = 1\nunknown_key = 1\n[system]\nenable = true\naddress = "${place.folder}/system.sock"\n[system.debug]\npprof_address = "127.0.0.1:0"\n[metrics]\naddress = "127.0.0.1:0"\n`,
  )
  const child = place.start('--config', file, ...place.flags(), '--log-to-stdout')
  await child.until(/ready after/)
  assert.ok(
    child.lines.some((line) => /WARN {2}configuration: line 2: unknown key "unknown_key" is ignored/.test(line)),
  )
  const status = await new Promise<number | undefined>((resolve, reject) => {
    request({ socketPath: join(place.folder, 'system.sock'), path: '/api/v1/daemons' }, (answer) => {
      answer.resume()
      resolve(answer.statusCode)
    })
      .on('error', reject)
      .end()
  })
  assert.equal(status, 200)
  child.kill('SIGTERM')
  await once(child, 'exit')
  assert.ok(!existsSync(join(place.folder, 'system.sock')))
})

test('doctor prints findings for people and for programs, and its exit code says whether something failed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'grpc-'))
  try {
    const file = join(folder, 'c.toml')
    writeFileSync(file, `version = 1\nroot = "${folder}/r"\naddress = "${folder}/s"\n`)
    const flags = ['doctor', '--config', file, '--containerd-config', join(folder, 'none.toml')]
    const people = run(...flags)
    assert.equal(people.status, 1)
    assert.match(people.stdout, /^FAILED {3}snapshotter-socket: .*\n {13}systemctl start containerd-nydus-grpc$/m)
    const programs = run(...flags, '--json')
    assert.equal(programs.status, 1)
    const { failed, findings } = JSON.parse(programs.stdout) as {
      failed: number
      findings: ReadonlyArray<{ check: string; status: string }>
    }
    assert.ok(failed > 0 && findings.filter(({ status }) => status === 'failed').length === failed)
    assert.equal(run('doctor', '--config', file, '--what').status, 2)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('doctor ends, and says so, when a nydusd below the root answers nothing', {
  skip: whyNoFuse() ?? false,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'grpc-'))
  const [silent, behind] = [join(folder, 'r/mnt/1'), join(folder, 'r/mnt/2')]
  const sessions: number[] = []
  try {
    for (const at of [silent, behind]) {
      mkdirSync(at, { recursive: true })
      sessions.push(mountFuse(at, { source: 'test', readOnly: true, maxReadBytes: 131_072 }))
    }
    const file = join(folder, 'c.toml')
    writeFileSync(file, `version = 1\nroot = "${folder}/r"\naddress = "${folder}/s"\n`)
    const { status, stdout } = run('doctor', '--config', file, '--containerd-config', join(folder, 'none.toml'))
    assert.equal(status, 1)
    const told = stdout.match(/^FAILED {3}leftover-mounts: .*/gm) ?? []
    assert.equal(told.length, 1, stdout)
    assert.match(told[0], /r\/mnt\/1 is mounted, and its nydusd does not answer within 5 s/)
    assert.match(stdout, /^\d+ findings: /m)
  } finally {
    for (const session of sessions) closeSync(session)
    for (const at of [silent, behind]) await unmount(at)
    rmSync(folder, { recursive: true, force: true })
  }
})

test("the state is given back to upstream's program when nobody uses it, and the next start goes on from there", {
  skip,
}, async () => {
  await using place = new Place()
  const first = place.start(...place.flags(), '--log-to-stdout')
  await first.until(/ready after/)
  await place.prepare('one')
  const refused = run('export-state', '--root', place.root)
  assert.equal(refused.status, 1)
  assert.match(refused.stderr, new RegExp(`process ${first.pid} uses the root directory`))
  first.kill('SIGTERM')
  await once(first, 'exit')
  const { status, stdout, stderr } = run('export-state', '--root', place.root, '--json')
  assert.equal(status, 0, stderr)
  const { snapshots, written } = JSON.parse(stdout) as { snapshots: number; written: string[] }
  assert.deepEqual([snapshots, written], [1, [join(place.root, 'metadata.db'), join(place.root, 'nydus.db')]])
  const second = place.start(...place.flags(), '--log-to-stdout')
  await second.until(/ready after/)
  assert.equal(await place.count(), 1)
  const nothing = run('export-state', '--root', join(place.folder, 'nothing'))
  assert.equal(nothing.status, 1)
  assert.match(nothing.stderr, /there is no state of a snapshotter in .*nothing; name its root directory/)
})

test('the service manager is told when it is ready and when it stops', { skip }, async () => {
  await using place = new Place()
  const manager = join(place.folder, 'notify')
  using receiver = new DatagramReceiver(manager)
  const [node, ...rest] = NODE
  const child = spawn(node, [...rest, ...place.flags()], {
    stdio: 'ignore',
    env: { ...process.env, NOTIFY_SOCKET: manager },
  })
  try {
    assert.match(await receiver.next(), /^READY=1\nSTATUS=serving .*n\.sock\n$/)
    child.kill('SIGTERM')
    assert.equal(await receiver.next(), 'STOPPING=1\nSTATUS=stopping\n')
    if (child.exitCode === null) await once(child, 'exit')
    assert.equal(child.exitCode, 0)
  } finally {
    child.kill('SIGKILL')
  }
})
