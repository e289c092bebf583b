import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Subject } from './conformance.ts'
import { backendConformance, patience, pattern, sha256 } from './conformance.ts'
import { localfsBackend } from './localfs.ts'

async function folder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'backend-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

async function subject(): Promise<Subject> {
  const place = await folder()
  const backend = localfsBackend({ dir: place.path })
  return {
    backend,
    async put(bytes) {
      await writeFile(join(place.path, sha256(bytes)), bytes)
      return sha256(bytes)
    },
    async [Symbol.asyncDispose]() {
      await backend.close()
      await place[Symbol.asyncDispose]()
    },
  }
}

backendConformance('localfs', subject)

test('one file serves every blob id, whatever it is', async () => {
  await using place = await folder()
  await writeFile(join(place.path, 'all'), pattern(100))
  const backend = localfsBackend({ blobFile: join(place.path, 'all'), dir: '/nowhere' })
  const reader = await backend.open('../any')
  const into = Buffer.alloc(100)
  await reader.read(0, into, patience())
  assert.ok(into.equals(pattern(100)))
  await backend.close()
})

test('other folders are looked into when the first has no blob or an empty one', async () => {
  await using place = await folder()
  const [first, second, third] = ['a', 'b', 'c'].map((name) => join(place.path, name)) as [string, string, string]
  for (const path of [first, second, third]) await mkdir(path)
  await writeFile(join(first, 'empty'), '')
  await writeFile(join(third, 'empty'), 'third')
  await writeFile(join(second, 'only'), 'second')
  await writeFile(join(second, 'void'), '')
  const backend = localfsBackend({ dir: first, altDirs: [second, third] })
  const sizes = ['empty', 'only', 'void'].map(async (id) => (await backend.open(id)).size(patience().signal))
  assert.deepEqual(await Promise.all(sizes), [5, 6, 0])
  await assert.rejects(backend.open('missing'), { code: 'NOT_FOUND', message: /c\/missing/ })
  await backend.close()
})

test('a file cut while it is open is TRUNCATED, never zeros; a replaced one stays the old', async () => {
  await using place = await folder()
  const path = join(place.path, 'blob')
  await writeFile(path, pattern(5000))
  const backend = localfsBackend({ dir: place.path })
  const reader = await backend.open('blob')
  await writeFile(`${path}.new`, pattern(5000, 9))
  await rename(`${path}.new`, path)
  const into = Buffer.alloc(5000)
  await reader.read(0, into, patience())
  assert.ok(into.equals(pattern(5000)))
  const cut = await backend.open('blob')
  await truncate(path, 1000)
  await assert.rejects(cut.read(0, into, patience()), { code: 'TRUNCATED', message: /cut from 5000 to 1000/ })
  await backend.close()
})

test('a folder or a FIFO in the place of a blob is refused at once', async () => {
  await using place = await folder()
  await mkdir(join(place.path, 'folder'))
  execFileSync('mkfifo', [join(place.path, 'fifo')])
  const backend = localfsBackend({ dir: place.path })
  for (const id of ['folder', 'fifo'])
    await assert.rejects(backend.open(id), { code: 'IO', message: /is no file/, retryable: false })
  await backend.close()
})

test('a backend without a place is refused', () => {
  assert.throws(() => localfsBackend({}), { code: 'BAD_OPTION' })
  assert.throws(() => localfsBackend({ dir: '', blobFile: '' }), { code: 'BAD_OPTION' })
})
