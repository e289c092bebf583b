import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { CARRIED_BLOBS, carriedImage, runNydusd, Scratch, TestDaemon } from '../testing.ts'
import { parseBlobEntry } from './blob-entry.ts'
import { BlobRegistry } from './blob-registry.ts'

const IMAGE = carriedImage('v6-tar-none-c64k')
const [BLOB = ''] = IMAGE.blobs

function entryOf(id: string, cache: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    type: 'bootstrap',
    id,
    domain_id: 'd',
    config: {
      backend_type: 'localfs',
      backend_config: { dir: CARRIED_BLOBS },
      cache_type: 'fscache',
      cache_config: { work_dir: cache },
      metadata_path: IMAGE.bootstrap,
    },
    ...more,
  }
}

test('blobs are there as long as a bootstrap of their domain is', async () => {
  await using scratch = new Scratch()
  const registry = new BlobRegistry()
  const add = (id: string, more: Record<string, unknown> = {}): Promise<void> =>
    registry.add(parseBlobEntry(entryOf(id, scratch.cache, more)))
  await Promise.all([add('a'), add('b'), add('c', { domain_id: '' })])
  assert.deepEqual(registry.keys, [BLOB, 'c', 'd/a', 'd/b', `d/${BLOB}`].sort())
  await assert.rejects(add('a'), { code: 'EXISTS' })
  registry.remove('d', 'a')
  assert.deepEqual(registry.keys, [BLOB, 'c', 'd/b', `d/${BLOB}`].sort())
  registry.remove('d', 'b')
  assert.deepEqual(registry.keys, [BLOB, 'c'].sort())
  assert.throws(() => registry.remove('d', 'b'), { message: 'blob_cache: cache entry not found' })
  await add('x')
  registry.remove('d', '')
  assert.deepEqual(registry.keys, [BLOB, 'c'].sort())
  registry.remove('', 'c')
  assert.deepEqual(registry.keys, [])
})

test('the API registers and removes, with the texts that clients read', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const api = join(scratch.path, 'api.sock')
  const config = join(scratch.path, 'blobs.json')
  writeFileSync(config, JSON.stringify({ blobs: [entryOf('first', scratch.cache)] }))
  const args = ['singleton', '-A', api, '-C', config, '--rlimit-nofile', '0', '--fscache-threads', '2']
  const daemon = scratch.own(new TestDaemon(args, api, { cwd: scratch.path, env: {} }))
  await daemon.ready()
  const ask = async (method: string, query: string, body?: unknown): Promise<[number, string]> => {
    const { status, text } = await daemon.api(method, `/api/v2/blobs${query}`, body)
    return [status, text === '' ? '' : (JSON.parse(text) as { message: string }).message]
  }
  const abnormal = (wrapper: string, text: string): string => `${wrapper}(DaemonAbnormal(Other("blob_cache: ${text}")))`
  const put = (id: string, more: Record<string, unknown> = {}) => ask('PUT', '', entryOf(id, scratch.cache, more))
  const wrongPath = entryOf('x', scratch.cache)['config'] as Record<string, unknown>
  for (const [what, answer, wanted] of [
    ['a second', await put('second'), [204, '']],
    ['the first again', await put('first'), [500, abnormal('CreateBlobObject', 'bootstrap blob already exists')]],
    ['no configuration', await put('x', { config: undefined }), [400, 'BadRequest']],
    ['a slash', await put('x/y'), [500, abnormal('CreateBlobObject', '`blob_id` for meta blob is invalid')]],
    [
      'no file',
      await put('x', { config: { ...wrongPath, metadata_path: '/no' } }),
      [500, abnormal('CreateBlobObject', '`config.metadata_path=/no` for meta blob is invalid')],
    ],
    [
      'an old image',
      await put('x', { config: { ...wrongPath, metadata_path: carriedImage('v5-empty').bootstrap } }),
      [500, abnormal('CreateBlobObject', 'RAFSv5 image is not supported')],
    ],
    ['a blob of it', await ask('DELETE', '?domain_id=d&blob_id=first'), [204, '']],
    [
      'it once more',
      await ask('DELETE', '?domain_id=d&blob_id=first'),
      [500, abnormal('DeleteBlobObject', 'cache entry not found')],
    ],
    ['the domain', await ask('DELETE', '?domain_id=d'), [204, '']],
    ['a file of the kernel', await ask('DELETE', '?blob_id=x'), [501, 'DeleteBlobFile(DaemonAbnormal(Unsupported))']],
    ['nothing', await ask('DELETE', ''), [400, 'BadRequest']],
    ['a listing', await ask('GET', '?domain_id=d'), [501, 'DeleteBlobObject(DaemonAbnormal(Unsupported))']],
  ] as const)
    assert.deepEqual(answer, wanted, what)
  const broken = await ask('PUT', '', '{')
  assert.equal(broken[0], 400)
  assert.match(broken[1], /^ParseBody\(/)
  assert.equal((await daemon.json('/api/v1/daemon'))['backend_collection'], null)
  assert.equal(await daemon.stop(), 0)
})

test('what it does not serve, it says', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const config = join(scratch.path, 'blobs.json')
  writeFileSync(config, JSON.stringify({ blobs: [entryOf('x', '/no/where')] }))
  for (const [args, code, text] of [
    [['--fscache', scratch.path], 1, /cachefiles/],
    [['--fscache-tag', 'x'], 2, /--fscache/],
    [['-C', config], 1, /cannot register "blobs\[0\]".*work_dir` is invalid/],
    [['--upgrade'], 1, /no state/],
  ] as const) {
    const ended = await runNydusd(['singleton', '--rlimit-nofile', '0', ...args])
    assert.equal(ended.code, code, ended.stderr)
    assert.match(ended.stderr, text)
  }
})

test('without a socket it stays until a signal ends it', { timeout: 180_000 }, async () => {
  await using scratch = new Scratch()
  const daemon = scratch.own(new TestDaemon(['singleton', '--rlimit-nofile', '0'], '', { cwd: scratch.path, env: {} }))
  while (!daemon.log.includes('serving')) await once(daemon.child.stderr ?? daemon.child, 'data')
  assert.match(daemon.log, /serving nobody: there is no --apisock/)
  assert.equal(await daemon.stop(), 0)
  assert.match(daemon.log, /nydusd stops: SIGTERM/)
})
