import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
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

test('a file that turned out to be wrong, or was cut, gives way to the one that was put in its place, under readers too', async () => {
  await using place = await folder()
  const path = join(place.path, 'blob')
  const put = async (bytes: Uint8Array): Promise<void> => {
    await writeFile(`${path}.new`, bytes)
    await rename(`${path}.new`, path)
  }
  const backend = localfsBackend({ dir: place.path })
  const into = Buffer.alloc(5000)
  const open = (): number => readdirSync('/proc/self/fd').length
  await put(pattern(5000, 9))
  const before = open()
  const reader = await backend.open('blob')
  await put(pattern(5000))
  const others = Array.from({ length: 20 }, async () => await reader.read(0, Buffer.alloc(5000), patience()))
  await reader.read(0, into, { ...patience(), afterWrongBytes: true })
  assert.ok(into.equals(pattern(5000)))
  await Promise.all(others)
  await reader.read(0, into, { ...patience(), afterWrongBytes: true }) // the same file still
  await truncate(path, 0)
  await put(pattern(5000, 7))
  await reader.read(0, into, patience())
  assert.ok(into.equals(pattern(5000, 7)))
  await rm(path)
  await reader.read(0, into, { ...patience(), afterWrongBytes: true }) // nothing is there: what is open is read
  assert.ok(into.equals(pattern(5000, 7)))
  assert.equal(open(), before + 1)
  const last = assert.rejects(reader.read(0, into, { ...patience(), afterWrongBytes: true }), { code: 'CLOSED' })
  await reader.close()
  await last
  assert.equal(open(), before)
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
