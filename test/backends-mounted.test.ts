/** Images mounted from every kind of place that is no folder; what is read is compared, what was asked for is counted. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { diskOf, split } from '../src/backend/testing/disk-image.ts'
import { ossVerifier, s3Verifier, startObjectStore } from '../src/backend/testing/object-store.ts'
import { CARRIED_BLOBS, carriedImage, contextsIn, differencesSeenApart, Scratch } from '../src/daemon/testing.ts'
import { whyNoFuse } from '../src/kernel/index.ts'

const skip = whyNoFuse() ?? false
const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs
const KEYS = { accessKeyId: 'AKIDEXAMPLE', accessKeySecret: 's3cret/key+', sessionToken: 't0ken' }

/** A document of version 2 with one backend, whose cache is the scratch's. */
function document(scratch: Scratch, type: string, table: Record<string, unknown>): string[] {
  const path = join(scratch.path, 'config.json')
  const cache = { type: 'blobcache', filecache: { work_dir: scratch.cache } }
  writeFileSync(path, JSON.stringify({ version: 2, backend: { type, [type]: table }, cache, rafs: {} }))
  return ['--bootstrap', IMAGE.bootstrap, '--config', path]
}

for (const kind of ['s3', 'oss'] as const)
  for (const from of ['configuration', 'environment'] as const)
    test(`an image in a bucket of ${kind}, with keys of the ${from}`, { skip }, async () => {
      await using scratch = new Scratch()
      const verify =
        kind === 's3' ? s3Verifier('eu-1', KEYS) : ossVerifier(KEYS, ({ url }) => decodeURIComponent(url ?? ''))
      await using store = await startObjectStore(verify)
      store.objects.set(`/images/nydus/${BLOB}`, readFileSync(join(CARRIED_BLOBS, BLOB)))
      const place = {
        scheme: 'http',
        endpoint: `127.0.0.1:${store.port}`,
        bucket_name: 'images',
        object_prefix: 'nydus/',
      }
      const keys = {
        access_key_id: KEYS.accessKeyId,
        access_key_secret: KEYS.accessKeySecret,
        session_token: KEYS.sessionToken,
      }
      const region = kind === 's3' ? { region: 'eu-1' } : {}
      const args = document(scratch, kind, { ...place, ...region, ...(from === 'configuration' ? keys : {}) })
      const [id, secret, token] =
        kind === 's3'
          ? ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']
          : ['OSS_ACCESS_KEY_ID', 'OSS_ACCESS_KEY_SECRET', 'OSS_SESSION_TOKEN']
      const env =
        from === 'environment'
          ? { [id ?? '']: KEYS.accessKeyId, [secret ?? '']: KEYS.accessKeySecret, [token ?? '']: KEYS.sessionToken }
          : {}
      store.failures.push({ status: 503, code: 'SlowDown' })
      const daemon = await scratch.nydusd(args, env)
      assert.deepEqual(await differencesSeenApart(scratch.mnt, IMAGE.tree), [])
      await contextsIn(scratch.cache)
      const metrics = await daemon.json('/api/v1/metrics/backend')
      assert.equal(metrics['backend_type'], 'oss')
      assert.equal(metrics['read_errors'], 1)
      assert.equal(metrics['read_count'], store.requests.filter((line) => line.startsWith('GET')).length)
      const shown = (await daemon.api('GET', '/api/v1/daemon')).text + daemon.log
      assert.doesNotMatch(shown, /AKIDEXAMPLE|s3cret|t0ken/)
    })

test('an image on a disk', { skip }, async () => {
  await using scratch = new Scratch()
  const disk = join(scratch.path, 'disk.img')
  writeFileSync(disk, diskOf([{ ...split(BLOB), bytes: readFileSync(join(CARRIED_BLOBS, BLOB)) }]))
  const daemon = await scratch.nydusd(document(scratch, 'localdisk', { device_path: disk }))
  assert.deepEqual(await differencesSeenApart(scratch.mnt, IMAGE.tree), [])
  assert.equal((await daemon.json('/api/v1/metrics/backend'))['backend_type'], 'localdisk')
})

/** Runs our nydus-image from its sources; the servers of this process answer meanwhile. */
async function nydusImage(args: readonly string[]): Promise<void> {
  const program = [
    '--disable-warning=ExperimentalWarning',
    join(import.meta.dirname, '../src/cli/nydus-image/index.ts'),
  ]
  await promisify(execFile)(process.execPath, [...program, ...args])
}

test('nydus-image unpacks from buckets and disks what it does from a folder', async () => {
  await using scratch = new Scratch()
  const at = (name: string): string => join(scratch.path, name)
  const blob = readFileSync(join(CARRIED_BLOBS, BLOB))
  await using s3 = await startObjectStore(s3Verifier('eu-1', KEYS))
  await using oss = await startObjectStore(ossVerifier(KEYS, ({ url }) => decodeURIComponent(url ?? '')))
  for (const store of [s3, oss]) store.objects.set(`/images/${BLOB}`, blob)
  writeFileSync(at('disk.img'), diskOf([{ ...split(BLOB), bytes: blob }]))
  const bucket = (port: number): object => ({
    scheme: 'http',
    endpoint: `127.0.0.1:${port}`,
    bucket_name: 'images',
    access_key_id: KEYS.accessKeyId,
    access_key_secret: KEYS.accessKeySecret,
    session_token: KEYS.sessionToken,
  })
  const places = {
    s3: { ...bucket(s3.port), region: 'eu-1' },
    oss: bucket(oss.port),
    localdisk: { device_path: at('disk.img') },
  }
  await nydusImage(['unpack', '-D', CARRIED_BLOBS, '--output', at('wanted.tar'), IMAGE.bootstrap])
  const wanted = readFileSync(at('wanted.tar'))
  for (const [type, table] of Object.entries(places)) {
    const given = ['--backend-type', type, '--backend-config', JSON.stringify(table)]
    await nydusImage(['unpack', ...given, '--output', at(`${type}.tar`), IMAGE.bootstrap])
    assert.ok(readFileSync(at(`${type}.tar`)).equals(wanted), type)
  }
})
