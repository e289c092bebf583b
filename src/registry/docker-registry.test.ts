/** The client against Debian's docker-registry (package docker-registry): the registry that most others descend from. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { anonymous, fromPassword } from './credentials.ts'
import { digestOf } from './digest.ts'
import { MEDIA_TYPES } from './manifest.ts'
import { blobOf, collect, pattern, pushImage, temporaryFolder, testClient } from './testing.ts'

const BINARY = '/usr/bin/docker-registry'
const skip = existsSync(BINARY) ? false : `${BINARY} is not installed (apt-get install docker-registry)`
/** bcrypt of "hush-hush" for user "me", cost 4. */
const HTPASSWD = 'me:$2y$04$WKhFiPLyGBVEGuGOKHJGBOG4kyov8V8L0sNe5izsIpsikTGMRsoHG'

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise<void>((resolve) => probe.close(() => resolve()))
  return port
}

async function dockerRegistry(auth: boolean): Promise<{ host: string; [Symbol.asyncDispose](): Promise<void> }> {
  const folder = await temporaryFolder()
  const port = await freePort()
  const lines = [
    'version: 0.1',
    'log: {level: error}',
    'storage:',
    `  filesystem: {rootdirectory: ${folder}/data}`,
    '  delete: {enabled: true}',
    `http: {addr: "127.0.0.1:${port}"}`,
  ]
  if (auth) {
    await writeFile(join(folder, 'htpasswd'), `${HTPASSWD}\n`)
    lines.push('auth:', `  htpasswd: {realm: test, path: ${folder}/htpasswd}`)
  }
  await writeFile(join(folder, 'config.yml'), `${lines.join('\n')}\n`)
  const child = spawn(BINARY, ['serve', join(folder, 'config.yml')], { stdio: 'ignore' })
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
      await rm(folder, { recursive: true, force: true })
    },
  }
}

test('push, pull, ranges, tags, mounts, referrers by tag, deletion', { skip }, async () => {
  await using registry = await dockerRegistry(false)
  await using one = testClient(registry.host, { plainHttp: 'localhost' })
  const content = pattern(3_000_001)
  const blob = blobOf(content)
  assert.equal(await one.repository.blobExists(blob.digest), false)
  assert.equal((await one.repository.uploadBlob(blob)).outcome, 'uploaded')
  assert.equal((await one.repository.uploadBlob(blob)).outcome, 'existed')
  assert.equal(await one.repository.blobSize(blob.digest), content.length)
  assert.deepEqual(await collect(one.repository.blobStream(blob.digest, { size: content.length })), content)
  const into = Buffer.alloc(100_000)
  await one.repository.readRange(blob.digest, 2_000_000, into)
  assert.deepEqual(into, content.subarray(2_000_000, 2_100_000))
  await assert.rejects(one.repository.readRange(blob.digest, content.length - 5, Buffer.alloc(10)), {
    code: 'TRUNCATED',
  })
  const pieces = pattern(1_000_000, 2)
  assert.equal((await one.repository.uploadBlob(blobOf(pieces), { chunkBytes: 300_000 })).outcome, 'uploaded')
  const streamed = pattern(777_777, 3)
  assert.equal(
    (await one.repository.uploadStream(blobOf(streamed).open(), { chunkBytes: 200_000 })).digest,
    digestOf(streamed),
  )
  assert.deepEqual(await collect(one.repository.blobStream(digestOf(streamed))), streamed)
  await using other = testClient(registry.host, { plainHttp: 'localhost' }, { name: 'other/name' })
  assert.equal((await other.repository.uploadBlob(blob, { mountFrom: ['test/image'] })).outcome, 'mounted')
  const image = await pushImage(one.repository, 'v1')
  const manifest = await one.repository.manifest('v1')
  assert.deepEqual([manifest.descriptor.digest, manifest.parsed.kind], [image.digest, 'image'])
  assert.deepEqual(await one.repository.resolve('v1'), manifest.descriptor)
  const subject = { mediaType: MEDIA_TYPES.ociManifest, digest: image.digest, size: image.bytes.length }
  const artifact = await pushImage(one.repository, '', { subject, artifactType: 'application/sbom' })
  assert.deepEqual(
    (await one.repository.referrers(image.digest, { artifactType: 'application/sbom' })).map(({ digest }) => digest),
    [artifact.digest],
  )
  assert.deepEqual((await one.repository.tags()).sort(), [image.digest.replace(':', '-'), 'v1'])
  await one.repository.deleteManifest(image.digest)
  await assert.rejects(one.repository.manifest('v1'), { code: 'NOT_FOUND' })
})

test('htpasswd: with the password, with a wrong one, without', { skip }, async () => {
  await using registry = await dockerRegistry(true)
  await using one = testClient(registry.host, { plainHttp: 'localhost', credentials: fromPassword('me', 'hush-hush') })
  const blob = blobOf(pattern(50_000))
  await one.repository.uploadBlob(blob)
  assert.equal(await one.repository.blobSize(blob.digest), 50_000)
  for (const credentials of [anonymous(), fromPassword('me', 'guess')]) {
    await using other = testClient(registry.host, { plainHttp: 'localhost', credentials })
    await assert.rejects(other.repository.blobSize(blob.digest), { code: 'UNAUTHORIZED' })
  }
})
