import assert from 'node:assert/strict'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { inspect } from 'node:util'
import { fromBase64, fromRegistryToken } from './credentials.ts'
import type { Credentials } from './credentials.ts'
import { fromDockerConfig } from './docker-config.ts'
import { temporaryFolder } from './testing.ts'

const SECRET = 'very-secret-99'
const auth = Buffer.from(`me:${SECRET}`).toString('base64')
const HELPER = `#!/bin/sh
[ "$1" = get ] || exit 9
read -r server
case $server in
  basic.example) echo '{"ServerURL":"x","Username":"helped","Secret":"${SECRET}"}' ;;
  token.example) echo '{"ServerURL":"x","Username":"<token>","Secret":"${SECRET}"}' ;;
  https://index.docker.io/v1/) echo '{"Username":"hub","Secret":"${SECRET}"}' ;;
  slow.example) sleep 30 ;;
  broken.example) echo 'error: ${SECRET}'; exit 1 ;;
  text.example) echo '${SECRET}' ;;
  loud.example) head -c 3000000 /dev/zero ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
`

async function withConfig(
  config: unknown,
  use: (look: (host: string) => Promise<Credentials>) => Promise<void>,
  helperTimeoutMs = 60_000,
): Promise<void> {
  const folder = await temporaryFolder()
  try {
    await mkdir(join(folder, 'bin'))
    await writeFile(join(folder, 'bin/docker-credential-fake'), HELPER)
    await chmod(join(folder, 'bin/docker-credential-fake'), 0o755)
    if (config !== undefined)
      await writeFile(join(folder, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config))
    const env = { PATH: `${join(folder, 'bin')}:/usr/bin:/bin`, DOCKER_CONFIG: folder }
    await use(fromDockerConfig({ env, helperTimeoutMs }))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

const summary = (found: Credentials): string => {
  if (found.kind === 'anonymous') return 'anonymous'
  if (found.kind === 'registry-token') return `registry-token ${found.token.reveal()}`
  return `${found.kind} ${found.username} ${found.kind === 'basic' ? found.password.reveal() : found.token.reveal()}`
}

describe('logins of the Docker client', () => {
  const cases: readonly (readonly [string, unknown, string, string])[] = [
    ['no file', undefined, 'a.example', 'anonymous'],
    ['an empty object', {}, 'a.example', 'anonymous'],
    ['another registry', { auths: { 'b.example': { auth } } }, 'a.example', 'anonymous'],
    ['by host', { auths: { 'a.example': { auth } } }, 'a.example', `basic me ${SECRET}`],
    ['by host and port', { auths: { 'localhost:5000': { auth } } }, 'localhost:5000', `basic me ${SECRET}`],
    ['as old clients wrote it', { auths: { 'https://a.example/v1/': { auth } } }, 'a.example', `basic me ${SECRET}`],
    ['Docker Hub', { auths: { 'https://index.docker.io/v1/': { auth } } }, 'docker.io', `basic me ${SECRET}`],
    [
      'user and password apart',
      { auths: { 'a.example': { username: 'me', password: SECRET } } },
      'a.example',
      `basic me ${SECRET}`,
    ],
    [
      'an identity token',
      { auths: { 'a.example': { auth, identitytoken: 'idt' } } },
      'a.example',
      'identity-token me idt',
    ],
    ['a registry token', { auths: { 'a.example': { registrytoken: 'rt' } } }, 'a.example', 'registry-token rt'],
    ['an empty entry', { auths: { 'a.example': {} } }, 'a.example', 'anonymous'],
    [
      'a helper for the registry',
      { credHelpers: { 'basic.example': 'fake' } },
      'basic.example',
      `basic helped ${SECRET}`,
    ],
    [
      'a helper that gives a token',
      { credHelpers: { 'token.example': 'fake' } },
      'token.example',
      `identity-token <token> ${SECRET}`,
    ],
    ['a store for all', { credsStore: 'fake' }, 'docker.io', `basic hub ${SECRET}`],
    [
      'a store that has none',
      { credsStore: 'fake', auths: { 'a.example': { auth } } },
      'a.example',
      `basic me ${SECRET}`,
    ],
    ['a store that has none, nor has the file', { credsStore: 'fake' }, 'a.example', 'anonymous'],
    ['a prototype name as host', { auths: { x: {} }, credHelpers: {} }, 'constructor', 'anonymous'],
  ]
  for (const [name, config, host, wanted] of cases) {
    test(name, () => withConfig(config, async (look) => assert.equal(summary(await look(host)), wanted)))
  }
})

describe('what cannot be used is BAD_CONFIG and shows no secret', () => {
  const cases: readonly (readonly [string, unknown, string, RegExp])[] = [
    ['no JSON', `{"auths": ${SECRET}`, 'a.example', /not a JSON object/],
    [
      'an auth without a colon',
      { auths: { 'a.example': { auth: Buffer.from(SECRET).toString('base64') } } },
      'a.example',
      /user:password/,
    ],
    ['an auth that is no base64', { auths: { 'a.example': { auth: `${SECRET} !` } } }, 'a.example', /base64/],
    ['a helper that fails', { credsStore: 'fake' }, 'broken.example', /exit code 1/],
    ['a helper that prints text', { credsStore: 'fake' }, 'text.example', /no JSON/],
    ['a helper that never ends', { credsStore: 'fake' }, 'slow.example', /within 1000 ms/],
    ['a helper that never stops', { credsStore: 'fake' }, 'loud.example', /more than/],
    ['a helper that is not there', { credsStore: 'absent' }, 'a.example', /not in the PATH/],
    ['a helper with a path for a name', { credsStore: '../../bin/sh' }, 'a.example', /only letters/],
  ]
  for (const [name, config, host, message] of cases) {
    const refused = async (look: (host: string) => Promise<Credentials>): Promise<void> => {
      await assert.rejects(look(host), (error: Error & { code: string }) => {
        assert.equal(error.code, 'BAD_CONFIG')
        assert.match(error.message, message)
        const shown = inspect(error, { depth: 20, showHidden: true })
        assert.doesNotMatch(shown, new RegExp(`${SECRET}|${auth}`))
        return true
      })
    }
    test(name, () => withConfig(config, refused, host === 'slow.example' ? 1000 : 60_000))
  }
})

test('credentials show no secret however they are printed', async () => {
  for (const source of [fromBase64(auth), fromRegistryToken(SECRET)]) {
    const found = await source('x')
    for (const shown of [
      inspect(found, { showHidden: true, depth: 9 }),
      JSON.stringify(found),
      Object.values(found).map(String).join(),
    ])
      assert.doesNotMatch(shown, new RegExp(`${SECRET}|${auth}`))
  }
  assert.throws(() => fromBase64('%%%'), { code: 'BAD_CONFIG' })
})
