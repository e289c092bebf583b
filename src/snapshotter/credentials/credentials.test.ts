import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { PULL_SECRET, PULL_USERNAME } from '../labels.ts'
import type { Labels } from '../snapshot.ts'
import type { Settings } from '../settings/index.ts'
import { type Credential, credentialOfBase64, TokenCredential } from './credential.ts'
import { Credentials } from './credentials.ts'
import { imageNameOf } from './image-name.ts'
import { skipWithoutOpenssl } from '../../registry/test-authority/index.ts'
import { dockerConfig, MiniKube, putCertificates } from './kubernetes/testing.ts'
import type { CredentialProvider } from './provider.ts'
import { ProviderChain } from './provider-chain.ts'
import { RenewedCredentials } from './renewed-credentials.ts'
import { recordedLog, SECRET, script, settings, shown, temporaryFolder } from './testing.ts'

const NEVER = new AbortController().signal
const NO_LABELS: Labels = new Map()
const LABELS: Labels = new Map([
  [PULL_USERNAME, 'labelled'],
  [PULL_SECRET, SECRET],
])

interface Opened {
  readonly credentials: Credentials
  readonly folder: string
  readonly lines: string[]
  /** Writes `config.json` of Docker. */
  readonly docker: (config: unknown) => Promise<void>
  readonly reopen: () => Promise<Credentials>
}

async function withCredentials(
  auth: Partial<Settings['remote']['auth']>,
  use: (opened: Opened) => Promise<void>,
  helperTimeoutMs = 60_000,
): Promise<void> {
  await using folder = await temporaryFolder()
  const log = recordedLog()
  const env = { PATH: `${join(folder.path, 'bin')}:/usr/bin:/bin`, DOCKER_CONFIG: folder.path }
  const docker = { env, helperTimeoutMs }
  const all: Credentials[] = []
  const reopen = async (): Promise<Credentials> => {
    const opened = await Credentials.open({
      settings: settings(auth),
      directory: join(folder.path, 'kept'),
      log,
      docker,
    })
    all.push(opened)
    return opened
  }
  try {
    await use({
      credentials: await reopen(),
      folder: folder.path,
      lines: log.lines,
      docker: (config) => writeFile(join(folder.path, 'config.json'), JSON.stringify(config)),
      reopen,
    })
  } finally {
    for (const each of all) await each.close()
  }
  assert.ok(!log.lines.join('\n').includes(SECRET), 'no line of the log shows a secret')
}

const auth = Buffer.from(`docked:${SECRET}`).toString('base64')

test('labels come before Docker, and Docker is read anew each time', () =>
  withCredentials({}, async ({ credentials, docker }) => {
    const find = async (labels = NO_LABELS): Promise<string> =>
      shown(await credentials.find('a.example/x', labels, NEVER))
    assert.equal(await find(), 'none')
    await docker({ auths: { 'a.example': { auth } } })
    assert.equal(await find(), `docked ${SECRET}`)
    assert.equal(await find(LABELS), `labelled ${SECRET}`)
    assert.equal(await find(new Map([[PULL_USERNAME, 'half']])), `docked ${SECRET}`)
    await docker({ auths: { 'a.example': { auth, identitytoken: 'x' } } })
    assert.equal(await find(), 'none')
    await docker({ auths: { 'a.example': { registrytoken: 'rt' } } })
    assert.equal(await find(), 'token rt')
  }))

test('all places are asked in order, and each counts when those before it have none', {
  skip: skipWithoutOpenssl,
}, async () => {
  await using folder = await temporaryFolder()
  const at = (name: string): string => join(folder.path, name)
  putCertificates(folder.path)
  const kube = new MiniKube(folder.path)
  await kube.start()
  kube.put('ns', 'pull', dockerConfig('a.example', 'kubernetes', 'p'))
  const user = { 'client-certificate': 'client.pem', 'client-key': 'client.key' }
  const cluster = { server: kube.url, 'certificate-authority': 'ca.pem' }
  const contexts = [{ name: 'c', context: { cluster: 'c', user: 'u' } }]
  const config = { 'current-context': 'c', contexts, clusters: [{ name: 'c', cluster }], users: [{ name: 'u', user }] }
  await writeFile(at('kubeconfig'), JSON.stringify(config))
  const apiVersion = 'credentialprovider.kubelet.k8s.io/v1'
  const plugin = { name: 'plugin', apiVersion, matchImages: ['*.example'], defaultCacheDuration: '0s' }
  await writeFile(at('plugins.json'), JSON.stringify({ kind: 'CredentialProviderConfig', providers: [plugin] }))
  const kubelet = { apiVersion, cacheKeyType: 'Image', auth: { 'a.example': { username: 'kubelet', password: 'p' } } }
  await script(at('bin'), 'plugin', `cat ${at('answer')}`)
  await writeFile(at('answer'), JSON.stringify(kubelet))
  await writeFile(at('config.json'), JSON.stringify({ auths: { 'a.example': { username: 'docker', password: 'p' } } }))
  const log = recordedLog()
  const credentials = await Credentials.open({
    settings: settings({
      kubeconfig: { enable: true, path: at('kubeconfig') },
      cri: { enable: true, imageServiceAddress: at('none.sock') },
      kubelet: { enable: true, config: at('plugins.json'), binDir: at('bin') },
    }),
    directory: at('kept'),
    log,
    docker: { directory: folder.path },
  })
  const find = async (labels = NO_LABELS): Promise<string> =>
    shown(await credentials.find('a.example/x', labels, NEVER))
  try {
    assert.equal(await find(LABELS), `labelled ${SECRET}`)
    assert.equal(await find(), 'docker p')
    await writeFile(at('config.json'), '{ damaged')
    assert.equal(await find(), 'kubelet p')
    await writeFile(at('answer'), 'damaged')
    assert.equal(await find(), 'kubernetes p')
    assert.match(log.lines.join('\n'), /from docker: [^]*from kubelet: /)
    assert.equal(credentials.services.length, 1)
  } finally {
    await credentials.close()
    await kube.stop()
  }
})

test('Docker Hub goes by all its names', () =>
  withCredentials({}, async ({ credentials, docker }) => {
    await docker({ auths: { 'https://index.docker.io/v1/': { auth } } })
    for (const name of [
      'node',
      'docker.io/node:24',
      'index.docker.io/library/node',
      'registry-1.docker.io/library/node',
    ])
      assert.equal(shown(await credentials.find(name, NO_LABELS, NEVER)), `docked ${SECRET}`)
  }))

describe('helpers of Docker', () => {
  const HELPER = `read -r server
echo asked >> "$0.asked"
case $server in
  fine.example) sleep 0.2; echo '{"Username":"helped","Secret":"${SECRET}"}' ;;
  failing.example) echo '${SECRET}'; exit 1 ;;
  huge.example) head -c 9000000 /dev/zero ;;
  hanging.example) sleep 60 ;;
esac`
  const cases: readonly (readonly [string, string, RegExp])[] = [
    ['fine.example', `helped ${SECRET}`, /from docker/],
    ['failing.example', 'none', /exit code 1/],
    ['huge.example', 'none', /printed more than/],
    ['hanging.example', 'none', /did not answer/],
  ]
  for (const [host, wanted, line] of cases)
    test(`${host} gives ${wanted === 'none' ? 'none, and a line in the log' : 'a login'}; ten questions are one process`, () => {
      const asked = async ({ credentials, docker, folder, lines }: Opened): Promise<void> => {
        await script(join(folder, 'bin'), 'docker-credential-fake', HELPER)
        await docker({ credHelpers: { [host]: 'fake' } })
        const found = await Promise.all(
          Array.from({ length: 10 }, () => credentials.find(`${host}/x`, NO_LABELS, NEVER)),
        )
        assert.deepEqual([...new Set(found.map(shown))], [wanted])
        assert.match(lines.join('\n'), line)
        assert.equal(await readFile(join(folder, 'bin/docker-credential-fake.asked'), 'utf8'), 'asked\n')
      }
      return withCredentials({}, asked, host === 'hanging.example' ? 1500 : 60_000)
    })
})

test('what is no reference is looked up nowhere', () =>
  withCredentials({}, async ({ credentials, lines }) => {
    for (const text of ['', '../../etc/passwd', 'http://a/b', 'A B', 'x'.repeat(100_000), '\0'])
      assert.equal(await credentials.find(text, LABELS, NEVER), undefined)
    assert.ok(lines.every((line) => line.length < 1000))
  }))

test('nobody waits any more: CANCELLED, whatever the providers do', () =>
  withCredentials({}, async ({ credentials }) => {
    await assert.rejects(credentials.find('a.example/x', NO_LABELS, AbortSignal.abort()), { code: 'CANCELLED' })
  }))

test('one form for all spellings of an image', () => {
  const cases = [
    ['node', 'docker.io/library/node:latest'],
    ['localhost:5000/a:1', 'localhost:5000/a:1'],
    [`node:24@sha256:${'a'.repeat(64)}`, `docker.io/library/node@sha256:${'a'.repeat(64)}`],
  ]
  for (const [text = '', wanted] of cases) assert.equal(imageNameOf(text), wanted)
})

test('a password may have colons; neither printing nor JSON shows it', () => {
  const found = credentialOfBase64(Buffer.from(`me:${SECRET}`).toString('base64'))
  assert.equal(shown(found), `me ${SECRET}`)
  assert.equal(shown(credentialOfBase64(Buffer.from(':tok').toString('base64'))), 'token tok')
  for (const text of ['', '%%', Buffer.from('no colon').toString('base64')])
    assert.equal(credentialOfBase64(text), undefined)
  for (const each of [found, new TokenCredential(SECRET)])
    for (const text of [inspect(each, { showHidden: true, depth: 9 }), JSON.stringify(each)])
      assert.ok(!text.includes(SECRET))
})

describe('renewal', () => {
  const HOUR = 3_600_000
  const inUse = (...references: string[]) => {
    const told: (readonly [string, string])[] = []
    return {
      told,
      references: () => references,
      renewed: async (reference: string, credential: Credential) => void told.push([reference, shown(credential)]),
    }
  }
  const login = (password: string) => ({ auths: { 'a.example': { username: 'me', password } } })

  test('what was found is served until it is renewed; users are told of newer ones only', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker }) => {
      const find = async (): Promise<string> => shown(await credentials.find('a.example/x:1', NO_LABELS, NEVER))
      await docker(login('one'))
      assert.equal(await find(), 'me one')
      await docker(login('two'))
      assert.equal(await find(), 'me one')
      const users = inUse('a.example/x:1', 'public.example/y')
      await credentials.renew(users)
      assert.equal(await find(), 'me two')
      await credentials.renew(users)
      assert.deepEqual(users.told, [['a.example/x:1', 'me two']])
      assert.deepEqual([...credentials.counts().renewals], [['a.example/x:1', { success: 2, failure: 0 }]])
      assert.deepEqual(credentials.counts().entries, ['a.example/x:1'])
    }))

  test('one that cannot be renewed stays, and is counted', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker }) => {
      await docker(login('one'))
      await credentials.find('a.example/x:1', NO_LABELS, NEVER)
      await docker({})
      await credentials.renew(inUse('a.example/x:1'))
      assert.equal(shown(await credentials.find('a.example/x:1', NO_LABELS, NEVER)), 'me one')
      assert.deepEqual([...credentials.counts().renewals], [['a.example/x:1', { success: 0, failure: 1 }]])
    }))

  test('a user that could not be told is told again', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker }) => {
      await docker(login('one'))
      const users = inUse('a.example/x:1')
      await credentials.renew({
        ...users,
        renewed: async () => {
          throw new Error('nydusd is away')
        },
      })
      await credentials.renew(users)
      assert.deepEqual(users.told, [['a.example/x:1', 'me one']])
    }))

  test('between rounds for all, those alone are asked for that nearly expire or were not told', async () => {
    await using folder = await temporaryFolder()
    const { lines, ...log } = recordedLog()
    const asked: string[] = []
    const provider: CredentialProvider = {
      name: 'kubelet',
      isRenewable: true,
      find: async ({ image }) => {
        asked.push(image)
        return { credential: new TokenCredential('new'), expiresAtMs: Date.now() + HOUR }
      },
    }
    const renewed = await RenewedCredentials.open({
      path: join(folder.path, 'renewed.json'),
      intervalMs: HOUR,
      providers: new ProviderChain([provider], log),
      log,
    })
    const old = new TokenCredential('old')
    renewed.keep('a.example/soon:1', old, Date.now() - 1)
    renewed.keep('a.example/late:1', old, Date.now() + HOUR)
    renewed.keep('a.example/never:1', old)
    const users = inUse('a.example/soon:1', 'a.example/late:1', 'a.example/never:1', 'a.example/public:1')
    const busy = {
      ...users,
      renewed: async () => {
        throw new Error('nydusd is away')
      },
    }
    await renewed.renew(busy, 'due')
    await renewed.renew(users, 'due')
    await renewed.renew(users, 'due')
    assert.deepEqual(asked, ['a.example/soon:1', 'a.example/soon:1'])
    assert.deepEqual(users.told, [['a.example/soon:1', 'token new']])
    await renewed.renew(users)
    assert.equal(asked.length, 2 + 4)
    await renewed.close()
    assert.match(lines.join('\n'), /nydusd is away/)
  })

  test('it outlives a restart, in a file that only its owner reads', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker, folder, reopen }) => {
      await docker({
        auths: { 'a.example': { username: 'me', password: SECRET }, 'b.example': { registrytoken: 'rt' } },
      })
      for (const image of ['a.example/x', 'b.example/x']) await credentials.find(image, NO_LABELS, NEVER)
      await credentials.close()
      await docker({})
      const next = await reopen()
      assert.equal(shown(await next.find('a.example/x', NO_LABELS, NEVER)), `me ${SECRET}`)
      assert.equal(shown(await next.find('b.example/x', NO_LABELS, NEVER)), 'token rt')
      assert.equal((await stat(join(folder, 'kept/renewed.json'))).mode & 0o777, 0o600)
      assert.equal((await stat(join(folder, 'kept'))).mode & 0o777, 0o700)
    }))

  test('a kept file that is damaged is logged and replaced', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker, folder, lines, reopen }) => {
      await docker(login(SECRET))
      await credentials.find('a.example/x', NO_LABELS, NEVER)
      await credentials.close()
      for (const text of [
        `{"images":[{"password":"${SECRET}"`,
        '[]',
        '{"images":[null,{},{"image":1}]}',
        '\0'.repeat(100),
      ]) {
        await writeFile(join(folder, 'kept/renewed.json'), text)
        await reopen()
      }
      assert.match(lines.join('\n'), /kept credentials are not used/)
      const next = await reopen()
      assert.equal(shown(await next.find('a.example/x', NO_LABELS, NEVER)), `me ${SECRET}`)
    }))

  test('what no image uses is forgotten after half an interval, and what was just found is not', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker, folder, reopen }) => {
      await docker(login('one'))
      await credentials.find('a.example/x:1', NO_LABELS, NEVER)
      await credentials.renew(inUse())
      assert.deepEqual(credentials.counts().entries, ['a.example/x:1'])
      await credentials.close()
      const path = join(folder, 'kept/renewed.json')
      const kept = JSON.parse(await readFile(path, 'utf8'))
      kept.images[0].renewed_at_ms -= HOUR / 2
      await writeFile(path, JSON.stringify(kept))
      const next = await reopen()
      await next.renew(inUse())
      assert.deepEqual(next.counts().entries, [])
    }))

  test('labels are not kept: they are for one snapshot', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials }) => {
      await credentials.find('a.example/x', LABELS, NEVER)
      assert.deepEqual(credentials.counts().entries, [])
    }))

  test('the first round comes at once', () =>
    withCredentials({ renewalIntervalMs: HOUR }, async ({ credentials, docker }) => {
      await docker(login('one'))
      const told = Promise.withResolvers<string>()
      credentials.startRenewal({
        references: () => ['a.example/x'],
        renewed: async (_, credential) => told.resolve(shown(credential)),
      })
      assert.equal(await told.promise, 'me one')
    }))
})
