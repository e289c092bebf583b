/** The original nydusify against the embedded registry; takes the program from $NYDUS_PEER_DIR. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fromPassword } from './credentials.ts'
import type { ServerAuth } from './server/server-auth.ts'
import { pushImage, temporaryFolder, testClient, testRegistry } from './testing.ts'

const nydusify = join(process.env['NYDUS_PEER_DIR'] ?? '/nonexistent', 'nydusify')
const skip = existsSync(nydusify) ? false : 'there is no nydusify in $NYDUS_PEER_DIR'
const users = { me: 'hush-hush' }
const auths: readonly (readonly [string, ServerAuth | undefined])[] = [
  ['without login', undefined],
  ['with Basic', { kind: 'basic', users }],
  ['with tokens', { kind: 'bearer', users, tokenLifeMs: 60_000 }],
]

function run(args: readonly string[], config: string): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(nydusify, args, {
      env: { PATH: process.env['PATH'], HOME: config, DOCKER_CONFIG: config },
      timeout: 60_000,
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
    child.once('close', (status) => resolve({ status, output }))
  })
}

for (const [name, auth] of auths) {
  for (const chunk of ['0MB', '512B']) {
    test(`nydusify copy ${name}, pieces of ${chunk}`, { skip }, async () => {
      await using registry = await testRegistry(auth === undefined ? {} : { auth })
      const { host } = registry.server
      const credentials = fromPassword('me', 'hush-hush')
      await using one = testClient(host, { credentials })
      const image = await pushImage(one.repository, 'v1')
      const config = await temporaryFolder()
      try {
        await mkdir(join(config, 'work'))
        await writeFile(
          join(config, 'config.json'),
          JSON.stringify({ auths: { [host]: { auth: Buffer.from('me:hush-hush').toString('base64') } } }),
        )
        const flags = [
          '--source',
          `${host}/test/image:v1`,
          '--target',
          `${host}/copied/to:v2`,
          '--source-insecure',
          '--target-insecure',
          '--work-dir',
          join(config, 'work'),
        ]
        const { status, output } = await run(['copy', ...flags, '--push-chunk-size', chunk], config)
        assert.equal(status, 0, output)
        await using copy = testClient(host, { credentials }, { name: 'copied/to' })
        assert.equal((await copy.repository.resolve('v2')).digest, image.digest)
      } finally {
        await rm(config, { recursive: true, force: true })
      }
    })
  }
}
