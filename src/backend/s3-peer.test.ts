/** S3 against a server that others wrote: moto, which verifies signatures with Amazon's own library. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { patience, pattern, sha256 } from './conformance.ts'
import { type S3Options, s3Backend } from './s3.ts'

const skip =
  spawnSync('python3', ['-c', 'import moto.server']).status === 0
    ? false
    : 'moto (pip install "moto[server]") is not installed'
const REGION = 'eu-west-1'
/** Plain: this server compares signatures of paths that it decoded, so that others fail with every client. */
const PREFIX = 'nydus/v1/'

interface Moto extends AsyncDisposable {
  readonly endpoint: string
}

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}

async function startMoto(): Promise<Moto> {
  const port = await freePort()
  const program = `import sys; sys.argv = ['moto', '-H', '127.0.0.1', '-p', '${port}']; from moto.server import main; main()`
  const child = spawn('python3', ['-c', program], {
    stdio: 'ignore',
    env: { ...process.env, INITIAL_NO_AUTH_ACTION_COUNT: '1000' },
  })
  const ended = new Promise((resolve) => child.once('close', resolve))
  const endpoint = `127.0.0.1:${port}`
  const moto: Moto = {
    endpoint,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
  const deadline = Date.now() + 100_000
  for (;;) {
    const up = await fetch(`http://${endpoint}/moto-api/`).then(
      () => true,
      () => false, // not yet
    )
    if (up) return moto
    if (child.exitCode !== null || Date.now() > deadline) {
      await moto[Symbol.asyncDispose]()
      throw new Error('moto does not start')
    }
    await sleep(50)
  }
}

/** One unsigned call of another service, as long as the server lets them pass; gives the values of the wanted elements. */
async function call(
  endpoint: string,
  service: string,
  parameters: Record<string, string>,
): Promise<(name: string) => string> {
  const authorization = `AWS4-HMAC-SHA256 Credential=any/20260101/${REGION}/${service}/aws4_request, SignedHeaders=host, Signature=none`
  const body = new URLSearchParams(parameters)
  const answer = await fetch(`http://${endpoint}/`, { method: 'POST', headers: { authorization }, body })
  const text = await answer.text()
  assert.equal(answer.status, 200, text)
  return (name) => new RegExp(`<${name}>([^<]+)</${name}>`).exec(text)?.[1] ?? ''
}

interface Keys {
  readonly accessKeyId: string
  readonly accessKeySecret: string
  readonly sessionToken: string
}

/** Keys of a user who may read the bucket, and temporary ones of a role that may. From then on nobody passes without a signature. */
async function makeKeys(endpoint: string, bucket: string): Promise<{ lasting: Keys; temporary: Keys }> {
  const statement = { Effect: 'Allow', Action: 's3:*', Resource: `arn:aws:s3:::${bucket}/*` }
  const policy = {
    PolicyName: 'read',
    PolicyDocument: JSON.stringify({ Version: '2012-10-17', Statement: [statement] }),
  }
  const trust = { Version: '2012-10-17', Statement: [{ Effect: 'Allow', Principal: '*', Action: 'sts:AssumeRole' }] }
  await call(endpoint, 'iam', { Action: 'CreateUser', UserName: 'reader' })
  await call(endpoint, 'iam', { Action: 'PutUserPolicy', UserName: 'reader', ...policy })
  const user = await call(endpoint, 'iam', { Action: 'CreateAccessKey', UserName: 'reader' })
  const role = await call(endpoint, 'iam', {
    Action: 'CreateRole',
    RoleName: 'reading',
    AssumeRolePolicyDocument: JSON.stringify(trust),
  })
  await call(endpoint, 'iam', { Action: 'PutRolePolicy', RoleName: 'reading', ...policy })
  const session = await call(endpoint, 'sts', { Action: 'AssumeRole', RoleArn: role('Arn'), RoleSessionName: 'one' })
  await fetch(`http://${endpoint}/moto-api/reset-auth`, { method: 'POST', body: '0' })
  const keysOf = (of: (name: string) => string): Keys => ({
    accessKeyId: of('AccessKeyId'),
    accessKeySecret: of('SecretAccessKey'),
    sessionToken: of('SessionToken'),
  })
  return { lasting: keysOf(user), temporary: keysOf(session) }
}

test('reads from a server that verifies signatures with the vendor’s library', { skip }, async () => {
  await using moto = await startMoto()
  const blob = pattern(700_000)
  const id = sha256(blob)
  const key = `${PREFIX}${id}`.split('/').map(encodeURIComponent).join('/')
  await fetch(`http://${moto.endpoint}/images`, {
    method: 'PUT',
    body: `<CreateBucketConfiguration><LocationConstraint>${REGION}</LocationConstraint></CreateBucketConfiguration>`,
  })
  const stored = await fetch(`http://${moto.endpoint}/images/${key}`, { method: 'PUT', body: blob })
  assert.equal(stored.status, 200)
  const { lasting, temporary } = await makeKeys(moto.endpoint, 'images')
  const options: S3Options = {
    scheme: 'http',
    endpoint: moto.endpoint,
    region: REGION,
    bucket: 'images',
    prefix: PREFIX,
    ...lasting,
    skipVerify: false,
    ca: '',
    timeoutMs: 10_000,
    connectTimeoutMs: 5000,
  }
  assert.notEqual(temporary.sessionToken, '')
  for (const keys of [lasting, temporary]) await readEverywhere({ ...options, ...keys }, id, blob)
  for (const [more, code] of [
    [{ accessKeySecret: 'wrong' }, 'UNAUTHORIZED'],
    [{ accessKeyId: 'AKIANOBODY' }, 'UNAUTHORIZED'],
    [{ ...temporary, sessionToken: 'another' }, 'UNAUTHORIZED'],
    [{ prefix: 'elsewhere/' }, 'NOT_FOUND'],
  ] as const) {
    const other = s3Backend({ ...options, ...more })
    await assert.rejects((await other.open(id)).read(0, Buffer.alloc(1), patience()), { code }, JSON.stringify(more))
    await other.close()
  }
})

async function readEverywhere(options: S3Options, id: string, blob: Buffer): Promise<void> {
  const backend = s3Backend(options)
  const reader = await backend.open(id)
  assert.equal(await reader.size(patience().signal), blob.length)
  for (const [offset, length] of [
    [0, blob.length],
    [123_456, 70_000],
    [blob.length - 1, 1],
  ] as const) {
    const into = Buffer.alloc(length)
    await reader.read(offset, into, patience())
    assert.ok(into.equals(blob.subarray(offset, offset + length)))
  }
  await assert.rejects(reader.read(blob.length, Buffer.alloc(1), patience()), { code: 'TRUNCATED' })
  await backend.close()
}
