/** `nydusify` from end to end: the embedded registry and Debian's, our daemon, and the original tools where they are. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { pushImage, sampleLayers, tarOf } from '../src/convert/testing.ts'
import { unmount } from '../src/kernel/index.ts'
import {
  anonymous,
  fromPassword,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../src/registry/index.ts'
import { freePort } from './node/registry.ts'

const TOOL = join(import.meta.dirname, '../src/cli/nydusify/index.ts')

let folder = ''
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nydusify-test-'))
})
after(() => rm(folder, { recursive: true, force: true }))

interface Ran {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  readonly message: string
}

async function nydusify(args: readonly string[], env: NodeJS.ProcessEnv = {}, input = ''): Promise<Ran> {
  const child = spawn(process.execPath, [TOOL, ...args], { cwd: folder, env: { HOME: folder, ...env } })
  const read = async (stream: NodeJS.ReadableStream): Promise<string> =>
    Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString()
  child.stdin.end(input)
  const status = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)])
  return { status: (await status) ?? -1, stdout, stderr, message: messageOf(stderr) }
}

/** The message of the last line of the log. */
function messageOf(stderr: string): string {
  const last = stderr.trimEnd().split('\n').at(-1) ?? ''
  const quoted = / msg=("(?:[^"\\]|\\.)*"|\S+)/.exec(last)?.[1]
  if (quoted === undefined) return last
  return quoted.startsWith('"') ? (JSON.parse(quoted) as string) : quoted
}

describe('against a registry', () => {
  let server: RegistryServer
  before(async () => {
    server = await startRegistry({ root: join(folder, 'registry'), host: '127.0.0.1', port: 0 })
    const client = new RegistryClient({ credentials: anonymous() })
    await pushImage(client.repository(parseReference(`${server.host}/app:1`)), await sampleLayers())
    await client.close()
  })
  after(() => server.close())

  test('convert and check, by flags and by the environment, in Go form', async () => {
    const name = `${server.host}/app:1`
    const converted = await nydusify([
      '-l',
      'info',
      'convert',
      '-source',
      name,
      '-target-suffix=-nydus',
      '--oci=true',
      '--output-json',
      'run.json',
      '--work-dir',
      'work',
    ])
    assert.equal(converted.status, 0, converted.stderr)
    const metrics = JSON.parse(await readFile(join(folder, 'run.json'), 'utf8')) as Record<string, number>
    assert.deepEqual(Object.keys(metrics), [
      'SourceImageSize',
      'TargetImageSize',
      'SourcePullElapsed',
      'ConversionElapsed',
      'TargetPushElapsed',
    ])
    assert.ok(Object.values(metrics).every((value) => Number.isInteger(value) && value > 0))
    assert.equal(existsSync(join(folder, 'work')), false)
    const checked = await nydusify(['check', '--json'], { SOURCE: name, TARGET: `${name}-nydus`, WORK_DIR: 'out' })
    assert.equal(checked.status, 0, checked.stderr)
    assert.deepEqual(JSON.parse(checked.stdout), { ok: true, findings: [] })
    assert.equal(checked.message, 'verified image')
    assert.ok(existsSync(join(folder, 'out/target/nydus_bootstrap/image/image.boot')))
  })

  test('a failed check: each finding a line and in the JSON, exit code 1', async () => {
    const { status, stdout, stderr, message } = await nydusify([
      'check',
      '--target',
      `${server.host}/app:1`,
      '--multi-platform',
      '--json',
      '--work-dir',
      'out',
    ])
    assert.equal(status, 1)
    assert.match(message, /^validate manifest failed: 1 difference, the first: /)
    assert.match(stderr, /level=error msg=.*the Nydus one is missing/)
    assert.equal((JSON.parse(stdout) as { findings: unknown[] }).findings.length, 1)
  })

  test('prefetch patterns come from stdin; metrics of a failure are null', async () => {
    const name = `${server.host}/app:1`
    const ran = await nydusify(
      ['convert', '--source', name, '--target', `${server.host}/app:p`, '--prefetch-patterns', '--work-dir', 'work'],
      {},
      '/bin\nrelative\n',
    )
    assert.equal(ran.status, 0, ran.stderr)
    assert.match(ran.stderr, /level=warning msg="Illegal file path relative/)
    const failed = await nydusify([
      'convert',
      '--source',
      `${server.host}/app:none`,
      '--target',
      `${server.host}/app:x`,
      '--output-json',
      'failed.json',
      '--work-dir',
      'work',
    ])
    assert.equal(failed.status, 1)
    assert.equal(await readFile(join(folder, 'failed.json'), 'utf8'), 'null\n')
  })

  test('Ctrl-C while an upload hangs: exit code 130, nothing in the work directory', async () => {
    server.resetCounters()
    server.fail({ match: { route: 'upload', method: 'PUT' }, times: 10, fault: { kind: 'stall', afterBytes: 0 } })
    const child = spawn(
      process.execPath,
      [
        TOOL,
        'convert',
        '--source',
        `${server.host}/app:1`,
        '--target',
        `${server.host}/other:1`,
        '--work-dir',
        'kept',
        '--compressor',
        'none',
      ],
      { cwd: folder, env: { HOME: folder }, stdio: 'ignore' },
    )
    const exit = new Promise<number | null>((resolve) => child.once('exit', resolve))
    while (server.counters().upload.requests < 2) await new Promise((resolve) => setTimeout(resolve, 10))
    child.kill('SIGINT')
    assert.equal(await exit, 130)
    server.clearFaults()
    assert.equal(existsSync(join(folder, 'kept')), false)
  })

  test('a log file, and a login in the Docker configuration that cannot be read', async () => {
    const name = `${server.host}/app:1`
    const ran = await nydusify(['--log-file', 'log.txt', 'check', '--target', `${name}-nydus`, '--work-dir', 'out'])
    assert.equal(ran.stderr, '')
    assert.match(await readFile(join(folder, 'log.txt'), 'utf8'), /level=info msg="verified image"/)
    await writeFile(join(folder, 'config.json'), '{"auths": "secret')
    const failed = await nydusify(['check', '--target', name, '--work-dir', 'out'], { DOCKER_CONFIG: folder })
    assert.equal(failed.status, 1)
    assert.match(failed.message, /config\.json: it is not a JSON object/)
  })
})

test('the commands of docs/nydusify.md run', async () => {
  const server = await startRegistry({ root: join(folder, 'docs-registry'), host: '127.0.0.1', port: 0 })
  try {
    const client = new RegistryClient({ credentials: anonymous() })
    await pushImage(client.repository(parseReference(`${server.host}/app:1`)), await sampleLayers())
    await client.close()
    const page = await readFile(join(import.meta.dirname, '../docs/nydusify.md'), 'utf8')
    const blocks = [...page.matchAll(/^```sh\n(.*?)^```/gms)].map(([, text = '']) => text.trim().split('\n'))
    assert.ok(blocks.flat().length >= 9)
    for (const line of blocks.flat()) {
      const [tool, ...args] = line.replaceAll('localhost:5000', server.host).split(' ')
      assert.equal(tool, 'nydusify')
      const { status, stderr } = await nydusify(args)
      assert.equal(status, 0, `${line}\n${stderr}`)
    }
  } finally {
    await server.close()
  }
})

test('every flag of the help is in docs/nydusify.md', async () => {
  const page = await readFile(join(import.meta.dirname, '../docs/nydusify.md'), 'utf8')
  for (const command of ['convert', 'check', 'mount']) {
    const { stdout } = await nydusify([command, '--help'])
    for (const [, flag = ''] of stdout.matchAll(/^ {2}(?:-\w, )?(--[\w-]+)/gm)) {
      assert.ok(flag === '--help' || page.includes(`\`${flag}`), `${command} ${flag}`)
    }
  }
})

const DOCKER_REGISTRY = '/usr/bin/docker-registry'
const skipWithoutDebian = existsSync(DOCKER_REGISTRY)
  ? false
  : `${DOCKER_REGISTRY} is not installed (apt-get install docker-registry)`
/** bcrypt of "hush-hush" for user "me", cost 4. */
const HTPASSWD = 'me:$2y$04$WKhFiPLyGBVEGuGOKHJGBOG4kyov8V8L0sNe5izsIpsikTGMRsoHG'

/** Debian's registry, with a login. */
async function debianRegistry(): Promise<{ readonly host: string } & AsyncDisposable> {
  const root = await mkdtemp(join(tmpdir(), 'docker-registry-'))
  const port = await freePort()
  await writeFile(join(root, 'htpasswd'), `${HTPASSWD}\n`)
  const lines = [
    'version: 0.1',
    'log: {level: error}',
    `storage: {filesystem: {rootdirectory: ${root}/data}}`,
    `http: {addr: "127.0.0.1:${port}"}`,
    `auth: {htpasswd: {realm: test, path: ${root}/htpasswd}}`,
  ]
  await writeFile(join(root, 'config.yml'), `${lines.join('\n')}\n`)
  const child = spawn(DOCKER_REGISTRY, ['serve', join(root, 'config.yml')], { stdio: 'ignore' })
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  for (let tries = 0; tries < 1200; tries += 1) {
    const up = await fetch(`http://127.0.0.1:${port}/v2/`).then(
      (answer) => answer.arrayBuffer().then(() => true),
      () => false,
    )
    if (up) break
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return {
    host: `127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await exited
      await rm(root, { recursive: true, force: true })
    },
  }
}

test("Debian's docker-registry with a login: push, convert to a merged index with referrer, check", {
  skip: skipWithoutDebian,
}, async () => {
  await using registry = await debianRegistry()
  const docker = join(folder, 'docker')
  await mkdir(docker, { recursive: true })
  await writeFile(
    join(docker, 'config.json'),
    JSON.stringify({ auths: { [registry.host]: { auth: Buffer.from('me:hush-hush').toString('base64') } } }),
  )

  const client = new RegistryClient({ credentials: fromPassword('me', 'hush-hush') })
  await pushImage(client.repository(parseReference(`${registry.host}/app:1`)), await sampleLayers(), { docker: true })
  await client.close()
  const env = { DOCKER_CONFIG: docker }
  const names = ['--source', `${registry.host}/app:1`, '--target', `${registry.host}/nydus/app:1`]
  const converted = await nydusify(
    ['convert', ...names, '--merge-platform', '--oci', '--with-referrer', '--work-dir', 'work'],
    env,
  )
  assert.equal(converted.status, 0, converted.stderr)
  const checked = await nydusify(['check', ...names, '--multi-platform', '--work-dir', 'out'], env)
  assert.equal(checked.status, 0, checked.stderr)
  const refused = await nydusify(['check', ...names, '--work-dir', 'out'])
  assert.equal(refused.status, 1)
  assert.match(refused.message, /401|docker login/)
  assert.doesNotMatch(converted.stderr + checked.stderr + refused.stderr, /hush/)
})

/** The original tools; the folder has nydusify, nydusd and nydus-image. */
const PEERS = process.env['NYDUS_PEER_DIR'] ?? ''
const peer = (name: string): string => join(PEERS, name)
const skipWithoutPeers =
  PEERS === ''
    ? 'NYDUS_PEER_DIR is not set: the original tools are not here'
    : ['nydusify', 'nydusd', 'nydus-image'].every((name) => existsSync(peer(name)))
      ? false
      : `NYDUS_PEER_DIR=${PEERS} lacks nydusify, nydusd or nydus-image`
const isRoot = process.getuid?.() === 0 && existsSync('/dev/fuse')

/** Nothing that the original's own check gets wrong: no trusted.* attributes, no directory that is deleted and made anew. */
async function peerLayers(): Promise<Buffer[]> {
  const root = { path: './', type: 'directory' } as const
  return [
    await tarOf([
      root,
      { path: 'bin/', type: 'directory' },
      { path: 'bin/app', type: 'file', mode: 0o755, content: Buffer.alloc(2_500_000, 'many chunks; ') },
      { path: 'bin/again', type: 'hardlink', mode: 0o755, link: 'bin/app' },
      { path: 'etc/', type: 'directory', uid: 7, gid: 8 },
      { path: 'etc/gone', type: 'file', content: 'x' },
      { path: 'etc/noted', type: 'file', content: 'noted', xattrs: { 'user.note': 'kept' } },
      { path: 'opaque/', type: 'directory' },
      { path: 'opaque/below', type: 'file', content: 'hidden' },
    ]),
    await tarOf([
      root,
      { path: 'etc/', type: 'directory', uid: 7, gid: 8 },
      { path: 'etc/.wh.gone', type: 'file' },
      { path: 'opaque/', type: 'directory' },
      { path: 'opaque/.wh..wh..opq', type: 'file' },
      { path: 'opaque/above', type: 'file', content: 'shown' },
    ]),
  ]
}

test('the original nydusify check and nydus-image check accept our image', {
  skip: skipWithoutPeers || (isRoot ? false : 'the original check mounts: it needs root and /dev/fuse'),
}, async () => {
  const server = await startRegistry({ root: join(folder, 'peer-registry'), host: '127.0.0.1', port: 0 })
  try {
    const client = new RegistryClient({ credentials: anonymous() })
    await pushImage(client.repository(parseReference(`${server.host}/app:1`)), await peerLayers())
    await client.close()
    for (const [index, flags] of [
      [],
      ['--oci', '--compressor', 'lz4_block', '--chunk-size', '0x1000'],
      ['--compressor', 'none', '--with-referrer'],
    ].entries()) {
      const names = ['--source', `${server.host}/app:1`, '--target', `${server.host}/app:nydus${index}`]
      const converted = await nydusify(['convert', ...names, ...flags, '--work-dir', 'work'])
      assert.equal(converted.status, 0, converted.stderr)
      const daemon = join(folder, 'peer-nydusd')
      // The original wants more descriptors than a container may give.
      await writeFile(daemon, `#!/bin/sh\nexec '${peer('nydusd')}' --rlimit-nofile 0 "$@"\n`, { mode: 0o755 })
      const args = [
        'check',
        ...names,
        '--nydus-image',
        peer('nydus-image'),
        '--nydusd',
        daemon,
        '--work-dir',
        join(folder, 'peer-out'),
      ]
      const checked = await run(peer('nydusify'), args)
      assert.equal(checked.status, 0, `${flags.join(' ')}\n${checked.stdout}${checked.stderr}`)
      const boot = join(folder, 'peer-out/target/nydus_bootstrap/image/image.boot')
      const { status, stdout, stderr } = spawnSync(peer('nydus-image'), ['check', '-v', '--bootstrap', boot], {
        encoding: 'utf8',
      })
      assert.equal(status, 0, stdout + stderr)
    }
  } finally {
    await server.close()
  }
})

/** Nothing that is run here takes a hundredth of this. */
const RUN_MS = 120_000

/** The server runs in this process: nothing here may block it. */
async function run(
  program: string,
  args: readonly string[],
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: RUN_MS,
    killSignal: 'SIGKILL',
  })
  const read = async (stream: NodeJS.ReadableStream): Promise<string> =>
    Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString()
  const status = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const [stdout, stderr] = await Promise.all([read(child.stdout), read(child.stderr)])
  return { status: await status, stdout, stderr }
}

const skipMount = isRoot ? false : 'mounting needs root and /dev/fuse'
const mounters = [
  {
    name: 'our nydusd',
    skip: skipMount,
    script: `exec '${process.execPath}' '${join(import.meta.dirname, '../src/cli/nydusd/index.ts')}' "$@"`,
  },
  {
    name: 'the original nydusd',
    skip: skipWithoutPeers || skipMount,
    script: `exec '${peer('nydusd')}' --rlimit-nofile 0 "$@"`,
  },
]

/** A registry with a converted image, and `nydusify mount` of it, started. */
async function startMount(script: string): Promise<Mounted> {
  const server = await startRegistry({ root: join(folder, 'mount-registry'), host: '127.0.0.1', port: 0 })
  const mountPath = join(folder, 'mnt')
  const daemon = join(folder, 'nydusd.sh')
  const client = new RegistryClient({ credentials: anonymous() })
  await pushImage(client.repository(parseReference(`${server.host}/app:1`)), await peerLayers())
  await client.close()
  const target = `${server.host}/app:n`
  const converted = await nydusify([
    'convert',
    '--source',
    `${server.host}/app:1`,
    '--target',
    target,
    '--work-dir',
    'w',
  ])
  assert.equal(converted.status, 0, converted.stderr)
  await writeFile(daemon, `#!/bin/sh\necho $$ > '${folder}/pid'\n${script}\n`, { mode: 0o755 })
  const args = ['mount', '--target', target, '--mount-path', mountPath, '--nydusd', daemon, '--work-dir', 'mount-work']
  const child = spawn(process.execPath, [TOOL, ...args], {
    cwd: folder,
    env: { HOME: folder },
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: RUN_MS,
  })
  const mounted = { mountPath, log: '', exit: new Promise<number | null>((resolve) => child.once('exit', resolve)) }
  await new Promise<void>((resolve) => {
    child.stderr.on('data', (text: Buffer) => {
      mounted.log += text.toString()
      if (mounted.log.includes('SIGINT/SIGTERM')) resolve()
    })
    child.once('exit', () => resolve())
  })
  return {
    ...mounted,
    end: (how) => (how === 'SIGINT' ? child.kill('SIGINT') : process.kill(daemonPid(), 'SIGKILL')),
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM')
      await mounted.exit
      await server.close()
      await unmount(mountPath, true)
    },
  }
}

interface Mounted extends AsyncDisposable {
  readonly mountPath: string
  readonly log: string
  readonly exit: Promise<number | null>
  end(how: 'SIGINT' | 'kill -9 of nydusd'): void
}

function daemonPid(): number {
  return Number(readFileSync(join(folder, 'pid'), 'utf8'))
}

for (const { name, skip, script } of mounters) {
  for (const ending of ['SIGINT', 'kill -9 of nydusd'] as const) {
    test(`nydusify mount with ${name}: the files are there; after ${ending} no mount, process or file`, {
      skip,
    }, async () => {
      await using mounted = await startMount(script)
      const { mountPath, log } = mounted
      // In a process of its own: a read that hangs must not hang this one, which is the registry.
      const shown = await run(
        'sha256sum',
        ['bin/app', 'opaque/above'].map((path) => join(mountPath, path)),
      )
      const wanted = [Buffer.alloc(2_500_000, 'many chunks; '), Buffer.from('shown')]
      assert.deepEqual(
        [...shown.stdout.matchAll(/^[0-9a-f]{64}/gm)].map(([digest]) => digest),
        wanted.map((bytes) => createHash('sha256').update(bytes).digest('hex')),
        `${shown.stderr}${log}`,
      )
      const pid = daemonPid()
      mounted.end(ending)
      assert.equal(await mounted.exit, ending === 'SIGINT' ? 0 : 1)
      assert.equal(existsSync(`/proc/${pid}`), false)
      assert.equal((await readFile('/proc/self/mountinfo', 'utf8')).includes(mountPath), false)
      assert.equal(existsSync(join(folder, 'mount-work')), false)
    })
  }
}
