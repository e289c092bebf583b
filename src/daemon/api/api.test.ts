import assert from 'node:assert/strict'
import { readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { whyNoFuse } from '../../kernel/index.ts'
import {
  CARRIED_BLOBS,
  carriedImage,
  localConfig,
  noSharedFixtures,
  Scratch,
  SHARED_FIXTURES,
  type TestDaemon,
} from '../testing.ts'
import { ROUTES } from './routes.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')

interface Exchange {
  readonly name: string
  readonly request?: { readonly method: string; readonly path: string; readonly body?: unknown }
  readonly response: {
    readonly status: number | null
    readonly headers: Record<string, string>
    readonly body: unknown
    readonly body_text?: string
  }
}

/** Where we answer otherwise on purpose: docs/nydusd.md, docs/configuration.md. */
const OTHERWISE: ReadonlyMap<string, number> = new Map([
  ['mount config digest_validate v6', 204], // everything is verified
  ['config all after', 200], // logins are told to those who ask for one mount only
  ['blobs put on fuse daemon', 501],
  ['blobs put bad json', 501],
  ['mount blob missing', 204], // a blob is looked for when it is read
])
/** Bodies that tell what happened on that machine: compared by their keys. */
const BY_KEYS = /^(daemon|metrics|backend$)/

/** The bytes that were sent when the fixtures were made: columns in answers count them. */
function asSent(body: unknown): string | undefined {
  if (body === undefined || typeof body === 'string') return body
  const text = (value: unknown): string => {
    if (Array.isArray(value)) return `[${value.map(text).join(', ')}]`
    if (typeof value !== 'object' || value === null) return JSON.stringify(value)
    return `{${Object.entries(value)
      .map(([key, inner]) => `${JSON.stringify(key)}: ${text(inner)}`)
      .join(', ')}}`
  }
  return text(body)
}

/** The folder names in the recorded bodies were shortened afterwards. */
function withoutColumn(text: string): string {
  return text.replace(/column: \d+/, '')
}

async function replay(daemon: TestDaemon, file: string): Promise<number> {
  const { exchanges } = JSON.parse(readFileSync(join(SHARED_FIXTURES, 'api', file), 'utf8')) as {
    exchanges: Exchange[]
  }
  let count = 0
  for (const { name, request, response } of exchanges) {
    if (request === undefined || response.status === null) continue
    const sized = /^(\d+) bytes of ' '$/.exec(String(request.body))
    const body = sized === null ? asSent(request.body) : ' '.repeat(Number(sized[1]))
    const answer = await daemon.api(request.method, request.path, body)
    const other = OTHERWISE.get(name)
    assert.equal(answer.status, other ?? response.status, `${name}: ${answer.text}`)
    count++
    // what the original refuses and we do not
    if (other === 204) await daemon.api('DELETE', '/api/v1/mount?mountpoint=/x')
    if (other !== undefined || request.method === 'HEAD') continue
    if (response.body_text !== undefined) assert.equal(answer.text, response.body_text, name)
    else if (response.body === null) assert.equal(answer.text, '', name)
    else if (response.status === 200 && BY_KEYS.test(name))
      assert.deepEqual(keysOf(JSON.parse(answer.text)), keysOf(response.body), name)
    else if (name.startsWith('mount no '))
      assert.equal(withoutColumn(answer.text), withoutColumn(JSON.stringify(response.body)), name)
    else assert.deepEqual(JSON.parse(answer.text), response.body, name)
    if (response.body !== null) assert.equal(answer.headers['server'], response.headers['Server'], name)
  }
  return count
}

/** The names of all members, whatever is in them. */
function keysOf(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return []
  return Object.entries(value)
    .flatMap(([key, inner]) => [`${path}.${key}`, ...keysOf(inner, `${path}.${key}`)])
    .filter((key) => !key.includes('underlying_files'))
    .sort()
}

test('recorded exchanges with the original get the same answers', {
  skip: skip || noSharedFixtures,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  for (const name of ['images', 'blobs', 'sources']) symlinkSync(join(SHARED_FIXTURES, name), join(scratch.path, name))
  scratch.folder('dirs')
  scratch.folder('dirs/small')
  writeFileSync(join(scratch.path, 'config.json'), localConfig('blobs', join('work', 'cache'), { enable_xattr: true }))
  const daemon = await scratch.nydusd(['--bootstrap', 'images/v6-tar-none-c64k/bootstrap', '--config', 'config.json'])
  for (const path of ['sizes/4096', 'sizes/65536', 'dup/a', 'empty']) readFileSync(join(scratch.mnt, path))
  const metrics = await daemon.json('/api/v1/metrics')
  assert.equal(metrics['data_read'], 139_632)
  assert.deepEqual(metrics['block_count_read'], [0, 0, 1, 0, 2, 0, 0, 0])
  assert.ok((await replay(daemon, 'mounted.json')) > 80)
  assert.equal(await daemon.ended(), 0)
  const empty = await scratch.nydusd([])
  assert.ok((await replay(empty, 'empty.json')) >= 8)
  assert.equal(await empty.stop(), 0)
})

test('errors have the texts that clients compare', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  writeFileSync(join(scratch.path, 'config.json'), localConfig(CARRIED_BLOBS, scratch.cache))
  const daemon = await scratch.nydusd(['--bootstrap', IMAGE.bootstrap, '--config', 'config.json'])
  const mount = { source: IMAGE.bootstrap, fs_type: 'rafs', config: localConfig(CARRIED_BLOBS, scratch.cache) }
  const cases: ReadonlyArray<readonly [string, string, unknown, number, string]> = [
    ['GET', '/api/v1/nope', undefined, 404, 'NoRoute'],
    ['PATCH', '/api/v1/daemon', {}, 400, 'BadRequest'],
    ['GET', '/api/v1/daemon', {}, 400, 'BadRequest'],
    ['PUT', '/api/v1/daemon/start', undefined, 400, 'Configure(DaemonAbnormal(UnexpectedEvent("Start")))'],
    ['POST', '/api/v1/mount', mount, 400, 'QueryString("\'mountpoint\' should be specified in query string")'],
    [
      'POST',
      '/api/v1/mount?mountpoint=/',
      mount,
      500,
      'Mount(MountFilesystem(Other("object or filesystem already exists")))',
    ],
    [
      'DELETE',
      '/api/v1/mount?mountpoint=/x',
      undefined,
      500,
      'Mount(MountFilesystem(Other("object or filesystem doesn\'t exist")))',
    ],
    ['GET', '/api/v1/metrics?id=x', undefined, 404, 'GlobalMetrics(Metrics(Stats(NoCounter)))'],
    ['GET', '/api/v1/metrics/pattern?id=x', undefined, 404, 'Pattern(Metrics(Stats(NoCounter)))'],
  ]
  for (const [method, path, body, status, message] of cases) {
    const answer = await daemon.api(method, path, body)
    assert.equal(answer.status, status, `${method} ${path}`)
    assert.deepEqual(JSON.parse(answer.text), { code: 'UNDEFINED', message })
  }
})

test('what is secret is neither shown nor logged', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(['--log-level', 'debug'])
  const auth = Buffer.from('me:pa55word').toString('base64')
  const registry = { host: '127.0.0.1:1', repo: 'a', scheme: 'http', auth, registry_token: 'tok3n' }
  const config = JSON.stringify({
    device: {
      backend: { type: 'registry', config: registry },
      cache: { type: 'blobcache', config: { work_dir: scratch.cache } },
    },
    mode: 'direct',
  })
  assert.equal(
    (await daemon.api('POST', '/api/v1/mount?mountpoint=/x', { source: IMAGE.bootstrap, fs_type: 'rafs', config }))
      .status,
    204,
  )
  assert.equal((await daemon.api('PUT', '/api/v1/config?id=/x', { registry_auth: auth })).status, 204)
  const answers = await Promise.all(
    ROUTES.filter(({ method }) => method === 'GET').map(({ path }) => daemon.api('GET', `${path}?mountpoint=/x`)),
  )
  const said = answers.map(({ text }) => text).join('\n') + daemon.log
  assert.ok(!said.includes(auth) && !said.includes('pa55word') && !said.includes('tok3n'))
  assert.match(said, /"registry_auth":"\*{6}"|"\/x:registry_auth":"\*{6}"/)
})

test('garbage gets an answer, and the daemon goes on', { skip, timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd([])
  const texts = [
    '\0\x01\x02\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    `GET /${'a'.repeat(100_000)} HTTP/1.1\r\n\r\n`,
    'GET // HTTP/1.1\r\n\r\n',
    'PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
  ]
  for (const text of texts) {
    const socket = connect(daemon.socket)
    socket.on('error', () => undefined)
    socket.write(text)
    await new Promise<void>((resolve) => {
      socket.once('data', () => resolve())
      socket.once('close', () => resolve())
    })
    socket.destroy()
  }
  assert.equal((await daemon.json('/api/v1/daemon'))['state'], 'RUNNING')
  const before = readdirSync(`/proc/${daemon.child.pid}/fd`).length
  const many = await Promise.all(Array.from({ length: 100 }, () => daemon.api('GET', '/api/v1/daemon')))
  assert.ok(many.every(({ status }) => status === 200))
  const descriptors = (): number => readdirSync(`/proc/${daemon.child.pid}/fd`).length
  for (let tries = 0; tries < 6000 && descriptors() > before; tries++) await sleep(10) // it notices hang-ups when it gets to it
  assert.ok(descriptors() <= before, `${descriptors()} descriptors, ${before} before`)
})
