/** Logins that are renewed while daemons serve. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { callApi, CARRIED_BLOBS, differencesSeenApart } from '../src/daemon/testing.ts'
import {
  digestOf,
  fromPassword,
  parseReference,
  RegistryClient,
  type RegistryServer,
  startRegistry,
} from '../src/registry/index.ts'
import { DaemonApi } from '../src/snapshotter/daemons/api-client.ts'
import { Field, FILE, IMAGE, OURS, PEER, skip, skipPeer, until } from './daemons/field.ts'

const REPO = 'test/image'
const AUTH = btoa('ann:secret')

async function registryIn(field: Field): Promise<RegistryServer & AsyncDisposable> {
  const auth = { kind: 'bearer', tokenLifeMs: 3_600_000, users: { ann: 'secret' } } as const
  const server = await startRegistry({ root: field.folder('registry'), host: '127.0.0.1', port: 0, auth })
  const client = new RegistryClient({ credentials: fromPassword('ann', 'secret'), plainHttp: 'always' })
  const repository = client.repository(parseReference(`${server.host}/${REPO}`))
  for (const blob of IMAGE.blobs) {
    const bytes = readFileSync(join(CARRIED_BLOBS, blob))
    const open = async function* () {
      yield bytes
    }
    await repository.uploadBlob({ digest: digestOf(bytes), size: bytes.length, open })
  }
  await client.close()
  return Object.assign(server, { [Symbol.asyncDispose]: () => server.close() })
}

/** What a credential provider gets: good until all tokens are made to expire. */
async function tokenOf(server: RegistryServer): Promise<string> {
  const url = `http://${server.host}/token?service=any&scope=repository:${REPO}:pull`
  const answer = await fetch(url, { headers: { authorization: `Basic ${AUTH}` } })
  return ((await answer.json()) as { readonly token: string }).token
}

const TEMPLATE = {
  device: {
    backend: { type: 'registry', config: { scheme: 'http', retry_limit: 1 } },
    cache: { type: 'blobcache', config: { work_dir: '/nowhere' } },
  },
  mode: 'direct',
  enable_xattr: true,
  amplify_io: 0,
}

for (const mode of ['shared', 'dedicated'] as const)
  test(`a renewed token reaches a running daemon, ${mode}, and outlives it; then a login takes its place`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode, recover: 'failover', template: TEMPLATE })
    await using server = await registryIn(field)
    const reference = `${server.host}/${REPO}`
    let token = await tokenOf(server)
    field.credentials = { find: async () => ({ token }) }
    const images = await field.start()
    const old = token
    const { mountpoint, key } = await field.ensure(field.layer(IMAGE), { reference })
    const settings = async (): Promise<unknown> => {
      const socketPath = images.list()[0]?.apiSocket ?? ''
      const { text } = await callApi(socketPath, 'GET', `/api/v1/config?id=${mode === 'shared' ? `/${key}` : '/'}`)
      return JSON.parse(text)
    }
    server.expireTokens()
    await assert.rejects(readFile(join(mountpoint, FILE)), { code: 'EIO' }) // never blocking: the registry is in this process
    token = await tokenOf(server)
    await images.renewed(reference, { token })
    server.resetCounters()
    assert.deepEqual(await differencesSeenApart(mountpoint, IMAGE.tree), [], field.lines.join('\n'))
    assert.equal(server.counters().token.requests, 0)
    assert.ok(server.counters().blob.requests > 0)
    const [before] = images.list()
    process.kill(before?.pid ?? 0, 'SIGKILL')
    await until('another daemon', () => {
      const [now] = images.list()
      return now?.state === 'running' && now.pid !== before?.pid ? true : undefined
    })
    assert.deepEqual(await settings(), { registry_token: token })
    await images.renewed(reference, { username: 'ann', password: 'secret' })
    assert.deepEqual(await settings(), { registry_auth: AUTH })
    for (const secret of [token, old, AUTH]) assert.ok(!field.lines.some((line) => line.includes(secret)))
  })

for (const mode of ['shared', 'dedicated'] as const)
  test(`a login that is renewed while nobody serves, ${mode}, reaches a daemon that its keeper brings back`, {
    skip,
    timeout: 180_000,
  }, async () => {
    await using field = new Field({ mode, recover: 'restart', template: TEMPLATE })
    const reference = '127.0.0.1:1/test/image'
    field.credentials = { find: async () => ({ username: 'ann', password: 'old' }) }
    const images = await field.start()
    const { key } = await field.ensure(field.layer(IMAGE), { reference })
    const renewed = new Promise<void>((resolve, reject) => {
      images.events.once('DIED', () => {
        images.renewed(reference, { username: 'ann', password: 'secret' }).then(resolve, reject)
      })
    })
    process.kill(images.list()[0]?.pid ?? 0, 'SIGKILL')
    await renewed
    await until(
      () => `another daemon with the login\n${field.lines.join('\n')}\n`,
      async () => {
        const socketPath = images.list()[0]?.apiSocket ?? ''
        const at = `/api/v1/config?id=${mode === 'shared' ? `/${key}` : '/'}`
        const answer = await callApi(socketPath, 'GET', at).catch(() => undefined)
        return answer?.text.includes(AUTH) === true ? true : undefined
      },
    )
    assert.ok(field.lines.some((line) => /was brought back by its keeper/.test(line)))
  })

test('a login that is renewed after a daemon has read the old one, and before it serves, is told to it', {
  skip,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'dedicated', template: TEMPLATE })
  const [hasRead, goOn] = [join(field.path, 'has-read'), join(field.path, 'go-on')]
  // Reads the configuration as nydusd does, and is slow afterwards.
  field.script(
    'nydusd',
    `test "$1" = --version && exec '${OURS}' --version
for word; do
  shift
  test "$last" = --config && { cp "$word" '${field.path}/read.json'; word='${field.path}/read.json'; }
  last=$word
  set -- "$@" "$word"
done
touch '${hasRead}'
until test -e '${goOn}'; do sleep 0.02; done
exec '${OURS}' "$@" --rlimit-nofile 0`,
  )
  const reference = '127.0.0.1:1/test/image'
  field.credentials = { find: async () => ({ username: 'ann', password: 'old' }) }
  const images = await field.start()
  const mounting = field.ensure(field.layer(IMAGE), { reference })
  await until('a daemon that has read its configuration', () => (existsSync(hasRead) ? true : undefined))
  await images.renewed(reference, { username: 'ann', password: 'secret' })
  writeFileSync(goOn, '')
  await mounting
  const { text } = await callApi(images.list()[0]?.apiSocket ?? '', 'GET', '/api/v1/config?id=/')
  assert.deepEqual(JSON.parse(text), { registry_auth: AUTH })
})

type Call = Parameters<DaemonApi['mount']>

test('a login that is renewed after a shared daemon was sent the old one, and before the image is mounted, is told to it', {
  skip,
  timeout: 180_000,
}, async (t) => {
  await using field = new Field({ mode: 'shared', template: TEMPLATE })
  const reference = '127.0.0.1:1/test/image'
  field.credentials = { find: async () => ({ username: 'ann', password: 'old' }) }
  const images = await field.start()
  const mount = Reflect.get(DaemonApi.prototype, 'mount')
  let sent = ''
  t.mock.method(DaemonApi.prototype, 'mount', async function (this: DaemonApi, ...call: Call) {
    sent = call[1].config
    await images.renewed(reference, { username: 'ann', password: 'secret' })
    await mount.apply(this, call)
  })
  const { key } = await field.ensure(field.layer(IMAGE), { reference })
  assert.ok(sent.includes(btoa('ann:old')) && !sent.includes(AUTH))
  const { text } = await callApi(images.list()[0]?.apiSocket ?? '', 'GET', `/api/v1/config?id=/${key}`)
  assert.deepEqual(JSON.parse(text), { registry_auth: AUTH })
})

test('a renewed token is kept for the next start of the original, which takes none while it runs', {
  skip: skipPeer,
  timeout: 180_000,
}, async () => {
  await using field = new Field({ mode: 'dedicated', recover: 'restart', template: TEMPLATE })
  field.program('nydusd', PEER)
  await using server = await registryIn(field)
  const reference = `${server.host}/${REPO}`
  const token = await tokenOf(server)
  field.credentials = { find: async () => ({ token }) }
  const images = await field.start()
  const layer = field.layer(IMAGE)
  const { mountpoint, configPath } = await field.ensure(layer, { reference })
  server.expireTokens()
  const next = await tokenOf(server)
  await images.renewed(reference, { token: next })
  assert.ok(field.lines.some((line) => /^debug the token of .* reaches nydusd \w+ at its next start/.test(line)))
  assert.ok(readFileSync(configPath, 'utf8').includes(next))
  const [before] = images.list()
  process.kill(before?.pid ?? 0, 'SIGKILL')
  await until('another daemon', () => {
    const [now] = images.list()
    return now?.state === 'running' && now.pid !== before?.pid ? true : undefined
  })
  assert.equal((await readFile(join(mountpoint, FILE))).length, 65_536)
})
