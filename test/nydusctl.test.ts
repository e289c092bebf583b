import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch, type TestDaemon } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'
import { runAllOf } from '../src/cli/testing.ts'
import type { Sample } from '../src/cli/nydusctl/sample.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const TOOL = join(import.meta.dirname, '../src/cli/nydusctl/index.ts')
const QUIET = '--disable-warning=ExperimentalWarning'

async function mounted(scratch: Scratch, paths: readonly string[] = ['/one']): Promise<TestDaemon> {
  const daemon = await scratch.nydusd([])
  for (const path of paths) {
    const config = localConfig(CARRIED_BLOBS, scratch.cache)
    const body = { source: IMAGE.bootstrap, fs_type: 'rafs', config }
    assert.equal((await daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, body)).status, 204)
  }
  return daemon
}

test('nydusctl mounts, looks and unmounts', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await mounted(scratch, [])
  writeFileSync(join(scratch.path, 'config.json'), localConfig(CARRIED_BLOBS, scratch.cache))
  const mount = ['mount', '-s', IMAGE.bootstrap, '-c', 'config.json', '-m', '/a name & more', '-t', 'rafs']
  const lines = [
    mount,
    ['info'],
    ['umount', '-m', '/a name & more'],
    ['info'],
    [...mount, '--json'],
    ['umount', '-m/nope', '--json'],
  ]
  const ran = await runAllOf(
    'nydusctl',
    lines.map((words) => ['-S', daemon.socket, ...words]),
    scratch.path,
  )
  assert.deepEqual(
    ran.map(({ exit }) => exit),
    [0, 0, 0, 0, 0, 1],
  )
  assert.equal(ran[0]?.stdout, '')
  assert.match(ran[1]?.stdout ?? '', /\nInstances:\n\tInstance Mountpoint: {2}\/a name & more\n\tType: {2}Rafs\n/)
  assert.ok(ran[3]?.stdout.includes('Instances') === false)
  assert.equal(ran[4]?.stdout, '{"done":true}\n')
  const failure = JSON.parse(ran[5]?.stdout ?? '') as { error: Record<string, unknown> }
  assert.equal(failure.error['code'], 'REFUSED')
  assert.equal(failure.error['status'], 500)
  assert.match(ran[5]?.stderr ?? '', /^Error: Request failed\. Object \{"code": String\("UNDEFINED"\)/)
})

test('top counts what was read, once without a terminal', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await mounted(scratch, ['/one', '/two'])
  for (let times = 0; times < 2; times++) readFileSync(join(scratch.mnt, 'one/sizes/65536'))
  const [plain, json] = await runAllOf(
    'nydusctl',
    [
      ['-S', daemon.socket, 'top'],
      ['-S', daemon.socket, 'top', '--json'],
    ],
    scratch.path,
  )
  assert.match(plain?.stdout ?? '', /^nydusd v\S+ · RUNNING · 2 mounts · 0 reads wait\n\nMOUNT +READS +READ +HITS/)
  assert.match(plain?.stdout ?? '', /\n\/one +1 +64\.0 KiB +- +\d +0 +localfs +\d+ +0 +[\d.]+ KiB\n\/two +0 +0 B /)
  const sample = JSON.parse(json?.stdout ?? '') as Sample
  assert.deepEqual(
    sample.mounts.map(({ mountpoint, readBytes }) => [mountpoint, readBytes]),
    [
      ['/one', 65_536],
      ['/two', 0],
    ],
  )
})

test('top on a terminal draws again and again, waits for a daemon that is gone, ends with q, and gives the terminal back', {
  skip:
    skip || (spawnSync('script', ['--version']).status === 0 ? false : 'there is no script(1), which makes terminals'),
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const daemon = await mounted(scratch)
  const command = [process.execPath, QUIET, TOOL, '-S', daemon.socket, 'top', '-I', '1']
    .map((word) => `'${word}'`)
    .join(' ')
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
  let seen = ''
  const until = async (words: string): Promise<void> => {
    const signal = AbortSignal.timeout(100_000)
    while (!seen.includes(words)) await once(child.stdout, 'data', { signal })
  }
  child.stdout.on('data', (part: Buffer) => (seen += part.toString()))
  try {
    const closed = once(child, 'close')
    await until('READS/s') // drawn a second time: there are rates
    await daemon.kill()
    await until('cannot reach nydusd at')
    child.stdin.write('q')
    const [code] = (await closed) as [number]
    assert.equal(code, 0, seen)
  } finally {
    child.kill() // and with it the terminal, which ends what runs in it
  }
  assert.match(seen, /nydusd v\S+ · RUNNING · 1 mount ·/)
  const leave = '\u001b[?25h\u001b[?1049l'
  assert.ok(seen.startsWith('\u001b[?1049h') && seen.trimEnd().endsWith(leave), JSON.stringify(seen.slice(-80)))
})

test('a socket that is dead, absent, not ours or mute is told as such', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const at = (name: string): string => join(scratch.path, name)
  const dead = spawnSync(process.execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(at('dead'))}, () => process.kill(process.pid, 'SIGKILL'))`,
  ])
  assert.equal(dead.signal, 'SIGKILL')
  const other = createHttpServer((_request, response) => response.setHeader('Server', 'Docker/27').end('{}'))
  const noHttp = createServer((socket) => socket.on('error', () => undefined).end('220 mail.example ESMTP\r\n'))
  const mute = createServer((socket) => socket.once('data', () => socket.destroy()))
  const servers = { other, noHttp, mute }
  for (const [name, server] of Object.entries(servers)) await once(server.listen(at(name)), 'listening')
  writeFileSync(at('file'), '')
  const expected: ReadonlyArray<readonly [string, RegExp]> = [
    ['dead', /nobody listens there.*\n\nCaused by:\n {4}Connection refused \(os error 111\)\n$/],
    ['absent', /there is no such socket; start "nydusd --apisock .*\n\nCaused by:\n {4}No such file or directory/],
    ['file', /Connection refused/],
    ['other', /is no nydusd: it is "Docker\/27"; give the socket/],
    ['noHttp', /is no nydusd: it does not speak HTTP/],
    ['mute', /hung up before it had answered/],
  ]
  try {
    const ran = await runAllOf(
      'nydusctl',
      expected.map(([name]) => ['-S', at(name), 'info']),
      scratch.path,
    )
    for (const [index, [name, words]] of expected.entries()) {
      assert.equal(ran[index]?.exit, 1, name)
      assert.equal(ran[index]?.stdout, '', name)
      assert.match(ran[index]?.stderr ?? '', words, name)
    }
  } finally {
    for (const server of Object.values(servers)) server.close()
  }
})

test('a refusal that is no JSON is told on one line, and moves no cursor', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const socket = join(scratch.path, 'odd')
  const server = createHttpServer((_request, response) =>
    response.writeHead(500, { server: 'Nydus API' }).end(`gone\n\u001b[2J${'x'.repeat(100_000)}`),
  )
  await once(server.listen(socket), 'listening')
  try {
    const [ran] = await runAllOf('nydusctl', [['-S', socket, 'info']], scratch.path)
    assert.equal(ran?.exit, 1)
    assert.match(ran.stderr, /^Error: Request failed\. gone\?\?\[2Jx{900,1000}\n$/)
  } finally {
    server.close()
  }
})

test('wrong intervals are refused', async () => {
  const ran = await runAllOf(
    'nydusctl',
    ['x', '0', '-1', '5000000000'].map((text) => ['-S', '/nowhere', 'metrics', 'backend', `-I=${text}`]),
    '/',
  )
  for (const { exit, stderr } of ran) {
    assert.equal(exit, 1)
    assert.match(stderr, /^Error: Invalid interval input\. /)
  }
})

test('completion needs no socket', async () => {
  const shells = ['bash', 'zsh', 'fish']
  const ran = await runAllOf(
    'nydusctl',
    [...shells.map((shell) => ['completion', shell]), ['completion'], ['info']],
    import.meta.dirname,
  )
  assert.deepEqual(
    ran.map(({ exit }) => exit),
    [0, 0, 0, 2, 2],
  )
  for (const { stdout } of ran.slice(0, 3)) assert.match(stdout, /umount/)
  assert.match(ran[3]?.stderr ?? '', /^error: .*\n {2}<shell>\n\nUsage: nydusctl completion <shell>\n/)
  assert.match(ran[4]?.stderr ?? '', /^error: .*\n {2}--sock <sock>\n\nUsage: nydusctl --sock <sock>\n/)
})
