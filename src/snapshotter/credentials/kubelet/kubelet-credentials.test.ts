import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { recordedLog, request, SECRET, script, shown, temporaryFolder } from '../testing.ts'
import { KubeletCredentials } from './kubelet-credentials.ts'

const NEVER = new AbortController().signal

/** Answers by the image that it is asked for, and notes each question. */
const PLUGIN = `cat >> "$NOTES"; echo >> "$NOTES"
case "$(tail -n 1 "$NOTES")" in
  *slow.example*) sleep 60 ;;
  *loud.example*) head -c 9000000 /dev/zero ;;
  *broken.example*) echo '${SECRET}'; exit 3 ;;
  *text.example*) echo '${SECRET}' ;;
  *null.example*) echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","auth":null}' ;;
  *old.example*) echo '{"apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","cacheKeyType":"Image","auth":{}}' ;;
  *) echo '{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"'$SCOPE'","cacheDuration":"'$LIFE'","auth":{"*.example":{"username":"'$1'","password":"${SECRET}"},"a.example/team":{"username":"team","password":"${SECRET}"},"token.example":{"username":"","password":"tok"}}}' ;;
esac`

interface Setup {
  readonly scope?: string
  readonly life?: string
  readonly config?: (text: string) => string
  readonly timeoutMs?: number
}

async function withPlugins(
  setup: Setup,
  use: (parts: { provider: KubeletCredentials; questions: () => Promise<string[]>; lines: string[] }) => Promise<void>,
): Promise<void> {
  await using folder = await temporaryFolder()
  const { scope = 'Image', life = '1h', config = (text) => text, timeoutMs = 30_000 } = setup
  const notes = join(folder.path, 'notes')
  await script(join(folder.path, 'bin'), 'first', PLUGIN)
  await script(join(folder.path, 'bin'), 'second', PLUGIN)
  const plugin = (name: string): string => `
- name: ${name}
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages: ["*.example", "a.example:5000"]
  defaultCacheDuration: 10m
  args: [${name}]
  env:
  - {name: SCOPE, value: ${scope}}
  - {name: LIFE, value: ${JSON.stringify(life)}}
  - {name: NOTES, value: ${notes}}`
  const text = `apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:${plugin('first')}${plugin('second')}\n`
  await writeFile(join(folder.path, 'config.yaml'), config(text))
  const log = recordedLog()
  const provider = await KubeletCredentials.open({
    configPath: join(folder.path, 'config.yaml'),
    directory: join(folder.path, 'bin'),
    timeoutMs,
    log,
  })
  const questions = async (): Promise<string[]> => (await readFile(notes, 'utf8')).trim().split('\n')
  await use({ provider, questions, lines: log.lines })
}

test('plugins are asked as the kubelet asks them, the first one counts, and the best pattern', () =>
  withPlugins({}, async ({ provider, questions }) => {
    const found = await provider.find(request('b.example/app:v1'), NEVER)
    assert.equal(shown(found?.credential), `first ${SECRET}`)
    assert.ok((found?.expiresAtMs ?? 0) > Date.now() + 3_500_000)
    const asked = await questions()
    assert.equal(asked.length, 2)
    assert.deepEqual(JSON.parse(asked[0] ?? ''), {
      kind: 'CredentialProviderRequest',
      apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
      image: 'b.example/app',
    })
    assert.equal(shown((await provider.find(request('a.example/team/app'), NEVER))?.credential), `team ${SECRET}`)
    assert.equal(shown((await provider.find(request('token.example/x'), NEVER))?.credential), 'token tok')
  }))

test('images that no plugin is for start no process', () =>
  withPlugins({}, async ({ provider, questions }) => {
    assert.equal(await provider.find(request('docker.io/library/node'), NEVER), undefined)
    await assert.rejects(questions(), { code: 'ENOENT' })
  }))

describe('answers are kept', () => {
  const cases: readonly (readonly [string, string, number])[] = [
    ['Image', '1h', 6],
    ['Registry', '1h', 4],
    ['Global', '1h', 2],
    ['Global', '0s', 8],
  ]
  for (const [scope, life, processes] of cases)
    test(`for ${scope} with ${life}: ${processes} processes for four questions about three images`, () =>
      withPlugins({ scope, life }, async ({ provider, questions }) => {
        for (const image of ['a.example/one', 'a.example/one:v2', 'a.example/two', 'b.example/three'])
          assert.ok((await provider.find(request(image), NEVER))?.credential)
        assert.equal((await questions()).length, processes)
      }))
})

test('an answer that does not last long enough is asked for anew; when that fails, the old one serves', () =>
  withPlugins({ life: '1m' }, async ({ provider, questions }) => {
    const image = 'a.example/one'
    await provider.find(request(image), NEVER)
    await provider.find(request(image, Date.now() + 3_600_000), NEVER)
    assert.equal((await questions()).length, 4)
  }))

test('twenty questions at once are one process a plugin', () =>
  withPlugins({}, async ({ provider, questions }) => {
    const all = await Promise.all(Array.from({ length: 20 }, () => provider.find(request('a.example/x'), NEVER)))
    assert.deepEqual(new Set(all.map((found) => shown(found?.credential))), new Set([`first ${SECRET}`]))
    assert.equal((await questions()).length, 2)
  }))

describe('a plugin that fails is named, and what it printed is not', () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ['broken.example', /exit code 3/],
    ['text.example', /not a JSON object/],
    ['loud.example', /printed more than/],
    ['old.example', /apiVersion must be/],
  ]
  for (const [host, message] of cases)
    test(host, () =>
      withPlugins({}, async ({ provider }) => {
        await assert.rejects(provider.find(request(`${host}/app`), NEVER), (error: Error) => {
          assert.match(error.message, message)
          assert.match(error.message, /first/)
          assert.ok(!inspect(error, { depth: 20, showHidden: true }).includes(SECRET))
          return true
        })
      }),
    )
  test('one that hangs is ended with its children', () =>
    withPlugins({ timeoutMs: 500 }, async ({ provider }) => {
      await assert.rejects(provider.find(request('slow.example/app'), NEVER), /did not answer within 500 ms/)
    }))
  test('one that has none says null', () =>
    withPlugins({}, async ({ provider }) =>
      assert.equal(await provider.find(request('null.example/x'), NEVER), undefined),
    ))
  test('who does not wait any longer gets an error at once', () =>
    withPlugins({}, async ({ provider }) => {
      await assert.rejects(provider.find(request('slow.example/x'), AbortSignal.timeout(50)), {
        code: 'DEADLINE_EXCEEDED',
      })
    }))
})

describe('configurations that the kubelet would refuse', () => {
  const cases: readonly (readonly [string, (text: string) => string, RegExp])[] = [
    ['a name with a slash', (text) => text.replace('name: first', 'name: ../first'), /without blanks and slashes/],
    ['two of a name', (text) => text.replace('name: second', 'name: first'), /two named "first"/],
    [
      'an old version',
      (text) => text.replace('k8s.io/v1\n', 'k8s.io/v1\n').replace('io/v1\n  match', 'io/v1alpha1\n  match'),
      /apiVersion of first/,
    ],
    ['no patterns', (text) => text.replace(/matchImages: .*/, 'matchImages: []'), /matchImages of first/],
    ['no duration', (text) => text.replace('defaultCacheDuration: 10m', ''), /defaultCacheDuration of first/],
    ['a negative duration', (text) => text.replace('10m', '-1m'), /defaultCacheDuration of first/],
    ['an environment variable twice', (text) => text.replace('name: LIFE', 'name: SCOPE'), /sets "SCOPE" twice/],
    ['no plugins', () => 'providers: []', /at least one plugin/],
    ['another kind', () => 'kind: Pod', /kind is "Pod"/],
    ['no YAML', () => '{[', /neither YAML nor JSON/],
    [
      'a bomb of aliases',
      () =>
        `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefgh'
          .split('')
          .map((name, at) => `${name}: &${name} [${Array(9).fill(`*${'abcdefg'[at]}`).join(',')}]`)
          .join('\n')}`,
      /neither YAML nor JSON/,
    ],
  ]
  for (const [name, config, message] of cases)
    test(name, () =>
      assert.rejects(
        withPlugins({ config }, async () => {}),
        { code: 'BAD_CONFIG', message },
      ),
    )
  test('one that wants service account tokens is left out, with a line in the log', () =>
    withPlugins(
      {
        config: (text) =>
          text.replace(
            '  defaultCacheDuration',
            '  tokenAttributes: {serviceAccountTokenAudience: x, requireServiceAccount: true}\n  defaultCacheDuration',
          ),
      },
      async ({ provider, lines }) => {
        assert.match(lines.join('\n'), /first is left out/)
        assert.equal(shown((await provider.find(request('b.example/x'), NEVER))?.credential), `second ${SECRET}`)
      },
    ))
})
