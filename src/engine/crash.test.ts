import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { buildLayer } from '../builder/index.ts'
import { DecodePool, openImage } from './index.ts'
import { buildTestImage, LIMITS, pattern, readFile, ToldBackend } from './testing.ts'

const folder = mkdtempSync(join(tmpdir(), 'nydus-engine-crash-'))
const decoders = new DecodePool(1)
after(async () => {
  await decoders.close()
  rmSync(folder, { recursive: true, force: true })
})
const image = await buildTestImage(buildLayer, {
  'a.bin': pattern(1, 500_000),
  'b.bin': pattern(2, 10),
  'c.bin': pattern(3, 70_000),
  'd.bin': pattern(4, 200_000),
})
const bootstrapPath = join(folder, 'bootstrap')
const blobPath = join(folder, 'blob')
writeFileSync(bootstrapPath, image.bootstrapBytes)
writeFileSync(blobPath, image.blob)

/** Reads everything in another process, which kills itself `turns` turns of its event loop after that request; -1 = never. */
async function readInChild(cache: string, request: number, turns: number): Promise<NodeJS.Signals | number | null> {
  const script = join(import.meta.dirname, 'killed-child.ts')
  const args = [script, bootstrapPath, blobPath, cache, String(request), String(turns)]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const [code, signal] = (await once(child, 'exit', { signal: AbortSignal.timeout(100_000) })) as [
    number | null,
    NodeJS.Signals | null,
  ]
  return signal ?? code
}

async function readHere(cacheDirectory: string): Promise<{ requests: number }> {
  const backend = new ToldBackend(image.blob)
  const reader = await openImage({ bootstrap: image.bootstrap, backend, cacheDirectory, decoders, limits: LIMITS })
  try {
    for (const [name, content] of Object.entries(image.files))
      assert.ok((await readFile(image.bootstrap, reader, name)).equals(content), name)
    assert.equal(reader.counters.failedReads, 0)
  } finally {
    await reader.close()
  }
  return { requests: backend.asked.length }
}

test('after kill -9 at any step every byte of the cache is right', async () => {
  for (const [request, turns] of [
    [0, 0],
    [0, 1],
    [0, 2],
    [0, 3],
    [1, 2],
    [2, 4],
  ]) {
    const cache = mkdtempSync(join(folder, 'killed-'))
    assert.equal(await readInChild(cache, request, turns), 'SIGKILL', `request ${request}, ${turns} turns`)
    await readHere(cache)
    assert.equal((await readHere(cache)).requests, 0, 'and the second time all of it is there')
  }
})

test('after a power cut, when marks are on the disk and data is not, what is missing is found out and fetched again', async () => {
  for (const keep of [0, 1, 4096, 300_000]) {
    const cache = mkdtempSync(join(folder, 'cut-'))
    await readHere(cache)
    const data = join(cache, readdirSync(cache).find((name) => name.endsWith('.blob.data')) ?? assert.fail('no data'))
    const bytes = readFileSync(data)
    // A disk that had written the map and only so much of the data; the size is metadata, and was there.
    writeFileSync(data, bytes.fill(0, keep))
    assert.ok((await readHere(cache)).requests > 0)
    assert.equal((await readHere(cache)).requests, 0, 'and the second time all of it is there')
  }
})

test('processes that share a cache directory all get the right bytes, and leave it right', async () => {
  const cache = mkdtempSync(join(folder, 'shared-'))
  const ends = Promise.all([readInChild(cache, -1, 0), readInChild(cache, -1, 0), readInChild(cache, 1, 2)])
  await readHere(cache)
  assert.deepEqual(await ends.then((all) => all.slice(0, 2)), [0, 0])
  assert.equal((await readHere(cache)).requests, 0)
})
