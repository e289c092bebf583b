import assert from 'node:assert/strict'
import { rename, symlink, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { recordedLog, request, SECRET, script, shown, temporaryFolder } from '../testing.ts'
import { KubernetesCredentials } from './kubernetes-credentials.ts'
import { skipWithoutOpenssl as skip } from '../../../registry/test-authority/index.ts'
import { dockerConfig, putCertificates, MiniKube } from './testing.ts'

const NEVER = new AbortController().signal

interface Bench {
  readonly kube: MiniKube
  readonly folder: string
  readonly lines: string[]
  /** What is found for an image of that host. */
  readonly find: (image: string) => Promise<string>
  /** Until it is that. */
  readonly until: (image: string, wanted: string) => Promise<void>
  readonly untilTrue: (what: string, isSo: () => boolean) => Promise<void>
  readonly open: (kubeconfig: object | string, env?: NodeJS.ProcessEnv) => Promise<KubernetesCredentials>
}

/** A kubeconfig for the test's server. */
function kubeconfig(kube: MiniKube, user: object, cluster: object = { 'certificate-authority': 'ca.pem' }): object {
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [{ name: 'here', context: { cluster: 'mini', user: 'me' } }],
    clusters: [
      { name: 'other', cluster: {} },
      { name: 'mini', cluster: { server: kube.url, ...cluster } },
    ],
    users: [{ name: 'me', user }],
  }
}

const CERTIFICATE = { 'client-certificate': 'client.pem', 'client-key': 'client.key' }

async function withKube(use: (bench: Bench) => Promise<void>): Promise<void> {
  await using folder = await temporaryFolder()
  putCertificates(folder.path)
  const kube = new MiniKube(folder.path)
  await kube.start()
  const log = recordedLog()
  const opened: KubernetesCredentials[] = []
  const bench: Bench = {
    kube,
    folder: folder.path,
    lines: log.lines,
    open: async (config, env = {}) => {
      const path = join(folder.path, 'kubeconfig')
      await writeFile(path, typeof config === 'string' ? config : JSON.stringify(config))
      const credentials = await KubernetesCredentials.open({
        path,
        env: { PATH: '/usr/bin:/bin', ...env },
        log,
        firstDelayMs: 20,
        mostDelayMs: 100,
      })
      opened.push(credentials)
      return credentials
    },
    find: async (image) => {
      const found = await opened
        .at(-1)
        ?.find(request(image), NEVER)
        .catch((error: Error) => error)
      return found instanceof Error ? `error ${found.message}` : shown(found?.credential)
    },
    until: async (image, wanted) => {
      for (let found = await bench.find(image); found !== wanted; found = await bench.find(image))
        await new Promise((resolve) => setTimeout(resolve, 10))
    },
    untilTrue: async (_, isSo) => {
      while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 10))
    },
  }
  try {
    await use(bench)
  } finally {
    for (const credentials of opened) await credentials.close()
    await kube.stop()
  }
  assert.ok(!log.lines.join('\n').includes(SECRET), 'no line of the log shows a secret')
}

describe('image pull secrets', { skip }, () => {
  test('are found by host, pattern and path, over all pages and namespaces', () =>
    withKube(async ({ kube, open, find }) => {
      kube.pageSize = 7
      for (let n = 0; n < 30; n += 1) kube.put(`ns${n}`, 'pull', dockerConfig(`r${n}.example`, `u${n}`, SECRET))
      kube.put('b', 'second', dockerConfig('same.example', 'second', 'p'))
      kube.put('a', 'first', dockerConfig('same.example', 'first', 'p'))
      kube.put('a', 'path', dockerConfig('https://same.example/v2/team', 'team', 'p'))
      kube.put('a', 'hub', dockerConfig('https://index.docker.io/v1/', 'hub', 'p'))
      kube.put('a', 'stars', dockerConfig('*.stars.example:5000', 'stars', 'p'))
      kube.put('a', 'other', dockerConfig('opaque.example', 'no', 'p'), 'Opaque')
      kube.put('a', 'damaged', 'e30=')
      kube.put('a', 'worse', Buffer.from(`{"auths":{"x":{"auth":"${SECRET}"`).toString('base64'))
      await open(kubeconfig(kube, CERTIFICATE))
      assert.equal(await find('r29.example/x'), `u29 ${SECRET}`)
      assert.equal(await find('same.example/x'), 'first p')
      assert.equal(await find('same.example/team/x'), 'team p')
      assert.equal(await find('node'), 'hub p')
      assert.equal(await find('a.stars.example:5000/x'), 'stars p')
      assert.equal(await find('opaque.example/x'), 'none')
      assert.equal(kube.counts.list, Math.ceil(37 / 7))
    }))

  test('that come, change and go are known by the watch; nothing is listed again', () =>
    withKube(async ({ kube, open, find, until, untilTrue }) => {
      await open(kubeconfig(kube, CERTIFICATE))
      assert.equal(await find('a.example/x'), 'none')
      await untilTrue('a watch', () => kube.watches === 1)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'one'))
      await until('a.example/x', 'me one')
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'two'))
      await until('a.example/x', 'me two')
      kube.put('ns', 'pull', 'no Docker configuration')
      await until('a.example/x', 'none')
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'three'))
      await until('a.example/x', 'me three')
      kube.remove('ns', 'pull')
      await until('a.example/x', 'none')
      assert.deepEqual([kube.counts.list, kube.counts.watch], [1, 1])
    }))

  test('a watch that ends goes on where it was, and a bookmark moves that place past what is forgotten', () =>
    withKube(async ({ kube, open, find, until, untilTrue }) => {
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'one'))
      await open(kubeconfig(kube, CERTIFICATE))
      assert.equal(await find('a.example/x'), 'me one')
      await untilTrue('a watch', () => kube.watches === 1)
      kube.bookmark()
      kube.put('ns', 'seen', dockerConfig('seen.example', 'me', 'p'))
      await until('seen.example/x', 'me p')
      kube.bookmark()
      kube.compact()
      kube.put('ns', 'late', dockerConfig('late.example', 'me', 'p'))
      await until('late.example/x', 'me p')
      kube.endWatches()
      await untilTrue('another watch', () => kube.counts.watch === 2)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'two'))
      await until('a.example/x', 'me two')
      assert.deepEqual(kube.counts, { list: 1, watch: kube.counts.watch, unauthorized: 0, gone: 0 })
    }))

  for (const where of ['in the watch', 'at the next one'] as const)
    test(`410 Gone ${where}: all is listed again, and what is known serves meanwhile`, () =>
      withKube(async ({ kube, open, find, until, untilTrue }) => {
        kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'one'))
        kube.put('ns', 'goes', dockerConfig('goes.example', 'me', 'one'))
        await open(kubeconfig(kube, CERTIFICATE))
        assert.equal(await find('a.example/x'), 'me one')
        await untilTrue('a watch', () => kube.watches === 1)
        if (where === 'in the watch') kube.goneInWatches()
        else {
          await kube.stop()
          kube.remove('ns', 'goes')
          kube.bookmark()
          kube.compact()
          assert.equal(await find('a.example/x'), 'me one')
          await kube.start()
        }
        await untilTrue('another list', () => kube.counts.list === 2)
        await untilTrue('a watch', () => kube.watches === 1)
        if (where === 'at the next one') await until('goes.example/x', 'none')
        kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'two'))
        await until('a.example/x', 'me two')
        assert.equal(kube.counts.list, 2)
      }))

  test('a list that is continued too late begins anew', () =>
    withKube(async ({ kube, open, until }) => {
      kube.pageSize = 2
      for (let n = 0; n < 5; n += 1) kube.put('ns', `s${n}`, dockerConfig(`r${n}.example`, 'me', 'p'))
      kube.expireContinue = true
      await open(kubeconfig(kube, CERTIFICATE))
      await until('r4.example/x', 'me p')
      assert.equal(kube.counts.gone, 1)
    }))

  test('an API server that is not there yet: the reason is told, and its coming noticed', () =>
    withKube(async ({ kube, open, find, until, lines }) => {
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'one'))
      await kube.stop()
      await open(kubeconfig(kube, CERTIFICATE))
      assert.match(
        await find('a.example/x'),
        /^error Kubernetes API https:\/\/127.0.0.1:\d+\/api\/v1\/secrets: .*ECONNREFUSED/,
      )
      await kube.start()
      await until('a.example/x', 'me one')
      assert.match(lines.join('\n'), /image pull secrets: .*next try within/)
    }))

  test('restarts of the server in the middle of everything', () =>
    withKube(async ({ kube, open, until, untilTrue }) => {
      await open(kubeconfig(kube, CERTIFICATE))
      for (let round = 0; round < 5; round += 1) {
        await untilTrue('a watch', () => kube.watches === 1)
        await kube.stop()
        kube.put('ns', 'pull', dockerConfig('a.example', 'me', `p${round}`))
        await kube.start()
        await until('a.example/x', `me p${round}`)
      }
      assert.equal(kube.counts.list, 1)
    }))

  test('nonsense in a watch does no harm', () =>
    withKube(async ({ kube, open, until, untilTrue, find }) => {
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'one'))
      await open(kubeconfig(kube, CERTIFICATE))
      await until('a.example/x', 'me one')
      const texts = [
        '{"type":"ADDED"}\n',
        '{"type":"ADDED","object":{}}\n',
        '{"type":7}\n',
        '\n\n',
        '[]\n',
        `{"x":"${SECRET}\n`,
        'null\n',
        'x'.repeat(9 << 20),
      ]
      for (const text of texts) {
        await untilTrue('a watch', () => kube.watches === 1)
        kube.say(text)
        assert.equal(await find('a.example/x'), 'me one')
      }
      await untilTrue('a watch', () => kube.watches === 1)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'two'))
      await until('a.example/x', 'me two')
    }))
})

describe('who we are at the API server', { skip }, () => {
  test('a client certificate in the file itself; a name that is not the address', () =>
    withKube(async ({ kube, folder, open, find }) => {
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'p'))
      const { readFileSync } = await import('node:fs')
      const data = (name: string): string => readFileSync(join(folder, name)).toString('base64')
      const user = { 'client-certificate-data': data('client.pem'), 'client-key-data': data('client.key') }
      const cluster = { 'certificate-authority-data': data('ca.pem'), 'tls-server-name': 'server.test' }
      await open(kubeconfig(kube, user, cluster))
      assert.equal(await find('a.example/x'), 'me p')
    }))

  test('a server that is not of that authority is not told the token', () =>
    withKube(async ({ kube, open, find }) => {
      kube.tokens.add(SECRET)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'p'))
      await open(kubeconfig(kube, { token: SECRET }, {}))
      assert.match(await find('a.example/x'), /^error .*(?:self-signed|verify|certificate)/)
      assert.deepEqual(kube.counts, { list: 0, watch: 0, unauthorized: 0, gone: 0 })
      await open(kubeconfig(kube, { token: SECRET }, { 'insecure-skip-tls-verify': true }))
      assert.equal(await find('a.example/x'), 'me p')
    }))

  test('a token file that is rotated is read anew', () =>
    withKube(async ({ kube, folder, open, find, until, untilTrue }) => {
      // As the kubelet does it: a link is renamed over the old one.
      await writeFile(join(folder, 'token1'), 'one\n')
      await symlink('token1', join(folder, 'token'))
      kube.tokens.add('one')
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'p'))
      await open(kubeconfig(kube, { tokenFile: 'token' }))
      assert.equal(await find('a.example/x'), 'me p')
      kube.tokens.clear()
      kube.tokens.add('two')
      kube.endWatches()
      await untilTrue('a refusal', () => kube.counts.unauthorized > 0)
      await writeFile(join(folder, 'token2'), 'two\n')
      await symlink('token2', join(folder, 'next'))
      await rename(join(folder, 'next'), join(folder, 'token'))
      await untilTrue('a watch', () => kube.watches === 1)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'q'))
      await until('a.example/x', 'me q')
      await unlink(join(folder, 'token'))
    }))

  test('a program gives tokens, and is asked again when one is refused', () =>
    withKube(async ({ kube, folder, open, find, until, untilTrue }) => {
      const answer = `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'$(cat ${folder}/now)'"}}`
      await script(
        join(folder, 'bin'),
        'get-token',
        `echo "$KUBERNETES_EXEC_INFO $1 $EXTRA" >> ${folder}/asked; echo '${answer}'`,
      )
      await writeFile(join(folder, 'now'), 'one')
      kube.tokens.add('one')
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'p'))
      const exec = {
        apiVersion: 'client.authentication.k8s.io/v1',
        command: './bin/get-token',
        args: ['arg'],
        env: [{ name: 'EXTRA', value: 'more' }],
      }
      await open(kubeconfig(kube, { exec }))
      assert.equal(await find('a.example/x'), 'me p')
      const { readFileSync } = await import('node:fs')
      const asked = (): string[] => readFileSync(join(folder, 'asked'), 'utf8').trim().split('\n')
      assert.equal(
        asked()[0],
        '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":false}} arg more',
      )
      assert.equal(asked().length, 1)
      await writeFile(join(folder, 'now'), 'two')
      kube.tokens.clear()
      kube.tokens.add('two')
      kube.endWatches()
      await untilTrue('a watch', () => kube.watches === 1 && asked().length >= 2)
      kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'q'))
      await until('a.example/x', 'me q')
    }))

  test('no right to read secrets: the server’s reason is told', () =>
    withKube(async ({ kube, open, find }) => {
      await open(kubeconfig(kube, { token: 'unknown' }))
      assert.match(await find('a.example/x'), /error .*: 401 Unauthorized/)
    }))
})

describe('where the configuration is', { skip }, () => {
  const connects = async (bench: Bench, env: NodeJS.ProcessEnv, podAccount?: string): Promise<string> => {
    bench.kube.put('ns', 'pull', dockerConfig('a.example', 'me', 'p'))
    const log = recordedLog()
    const credentials = await KubernetesCredentials.open({
      path: '',
      env,
      log,
      firstDelayMs: 20,
      ...(podAccount === undefined ? {} : { podAccount }),
    })
    try {
      return shown((await credentials.find(request('a.example/x'), NEVER))?.credential)
    } finally {
      await credentials.close()
    }
  }

  test('$KUBECONFIG names several, the first that has an entry counts', () =>
    withKube(async (bench) => {
      const { folder, kube } = bench
      await writeFile(join(folder, 'one'), JSON.stringify({ users: [{ name: 'me', user: CERTIFICATE }] }))
      await writeFile(join(folder, 'two'), JSON.stringify(kubeconfig(kube, { token: 'wrong' })))
      const KUBECONFIG = ['none', 'one', 'two'].map((name) => join(folder, name)).join(':')
      assert.equal(await connects(bench, { KUBECONFIG }), 'me p')
    }))

  test('~/.kube/config', () =>
    withKube(async (bench) => {
      const { folder, kube } = bench
      const { mkdir } = await import('node:fs/promises')
      await mkdir(join(folder, '.kube'))
      const absolute = { 'client-certificate': join(folder, 'client.pem'), 'client-key': '../client.key' }
      await writeFile(
        join(folder, '.kube/config'),
        JSON.stringify(kubeconfig(kube, absolute, { 'certificate-authority': '../ca.pem' })),
      )
      assert.equal(await connects(bench, { HOME: folder }), 'me p')
    }))

  test('in a pod, its own account', () =>
    withKube(async (bench) => {
      const { folder, kube } = bench
      await writeFile(join(folder, 'token'), 'pod-token')
      await symlink('ca.pem', join(folder, 'ca.crt'))
      kube.tokens.add('pod-token')
      const env = {
        HOME: folder,
        KUBERNETES_SERVICE_HOST: '127.0.0.1',
        KUBERNETES_SERVICE_PORT: new URL(kube.url).port,
      }
      assert.equal(await connects(bench, env, folder), 'me p')
    }))

  const wrong: readonly (readonly [string, (kube: MiniKube) => object | string, RegExp])[] = [
    ['no context', (kube) => ({ ...kubeconfig(kube, {}), 'current-context': '' }), /current-context is not set/],
    [
      'a context that is not there',
      (kube) => ({ ...kubeconfig(kube, {}), 'current-context': 'x' }),
      /contexts has no entry named "x"/,
    ],
    ['no server', (kube) => kubeconfig(kube, {}, { server: 'nowhere' }), /server of the cluster/],
    ['a proxy', (kube) => kubeconfig(kube, {}, { 'proxy-url': 'http://x' }), /proxy-url is not supported/],
    ['a certificate without its key', (kube) => kubeconfig(kube, { 'client-certificate': 'x' }), /belong together/],
    ['a login that is gone', (kube) => kubeconfig(kube, { 'auth-provider': {} }), /auth-provider was removed/],
    [
      'a program of an old version',
      (kube) => kubeconfig(kube, { exec: { command: 'x', apiVersion: 'client.authentication.k8s.io/v1alpha1' } }),
      /apiVersion of exec/,
    ],
    [
      'a program that asks a person',
      (kube) =>
        kubeconfig(kube, {
          exec: { command: 'x', apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Always' },
        }),
      /asks a person/,
    ],
    ['no YAML', () => `token: {{${SECRET}`, /neither YAML nor JSON/],
  ]
  for (const [name, config, message] of wrong)
    test(`${name} is refused`, () =>
      withKube(async ({ kube, open }) => {
        await assert.rejects(open(config(kube)), (error: Error & { code: string }) => {
          assert.equal(error.code, 'BAD_CONFIG')
          assert.match(error.message, message)
          assert.ok(!error.message.includes(SECRET))
          return true
        })
      }))
})
