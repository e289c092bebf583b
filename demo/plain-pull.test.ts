import assert from 'node:assert/strict'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { mountOverlay, unmount } from '../src/kernel/index.ts'
import { type RegistryServer, startRegistry } from '../src/registry/index.ts'
import { pushImage } from './image.ts'
import type { LayerEntry, LayerPlan } from './layers.ts'
import { plainPull } from './plain-pull.ts'

const skip = process.geteuid?.() === 0 ? false : 'needs root (owners, devices, overlayfs)'

interface Setup {
  readonly server: RegistryServer
  readonly layers: readonly LayerPlan[]
  readonly reference: string
  readonly into: string
  readonly folder: string
}

/** Three layers: many small files and a large one, text, and a release that deletes. */
function planOf(folder: string): LayerPlan[] {
  mkdirSync(join(folder, 'host'))
  const entries: LayerEntry[] = [{ path: 'data', directory: true }]
  for (let index = 0; index < 400; index++) {
    const from = join(folder, 'host', `f${index}`)
    writeFileSync(from, Buffer.alloc(index * 37, `content ${index};`))
    entries.push({ path: `data/${index % 7}/é${index}`, from })
  }
  const large = join(folder, 'host/large')
  writeFileSync(large, Buffer.from(Array.from({ length: 5_000_000 }, (_, at) => (at * 7919) >> 5)))
  symlinkSync('large', join(folder, 'host/link'))
  entries.push({ path: 'data/large', from: large }, { path: 'data/link', from: join(folder, 'host/link') })
  return [
    { name: 'files', entries },
    {
      name: 'text',
      entries: [
        { path: 'app/old/notes', text: 'old' },
        { path: 'app/release', text: '1' },
      ],
    },
    {
      name: 'release',
      entries: [
        { path: 'app/release', text: '2' },
        { path: 'app/old', deleted: true },
        { path: 'data/1', deleted: true },
      ],
    },
  ]
}

async function setup(t: TestContext): Promise<Setup> {
  const folder = mkdtempSync(join(tmpdir(), 'demo-pull-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const server = await startRegistry({ root: join(folder, 'store'), host: '127.0.0.1', port: 0 })
  t.after(() => server.close())
  const layers = planOf(folder)
  const { reference } = await pushImage({ layers, registry: server.url })
  server.resetCounters()
  const into = join(folder, 'into')
  mkdirSync(into)
  return { server, layers, reference, into, folder }
}

test('a pulled image is the planned tree, layer by layer and as overlayfs shows it', { skip }, async (t) => {
  const { server, layers, reference, into, folder } = await setup(t)
  const told: Array<readonly [number, number]> = []
  const client = { plainHttp: 'always' } as const
  const onProgress = (done: number, total: number): void => void told.push([done, total])
  const pulled = await plainPull({ reference, client, directory: into, onProgress })
  assert.deepEqual(
    pulled.layers,
    [0, 1, 2].map((index) => join(into, String(index))),
  )
  for (const [index, { entries }] of layers.entries())
    for (const entry of entries) compare(entry, join(into, String(index), entry.path))
  assert.equal(pulled.requests, 5)
  const { blob, manifest } = server.counters()
  assert.equal(blob.bytesOut + manifest.bytesOut, pulled.bytes)
  assert.deepEqual(told.at(-1)?.[0], told.at(-1)?.[1])
  assert.deepEqual(pulled.config.config?.['WorkingDir'], '/app')
  assert.ok(pulled.timings.unpack >= pulled.timings.download)

  const at = join(folder, 'merged')
  mkdirSync(at)
  try {
    await mountOverlay(at, { lower: pulled.layers.toReversed() })
  } catch (error) {
    return t.diagnostic(`no overlayfs on ${folder}: ${(error as Error).message}`)
  }
  try {
    assert.deepEqual(readdirSync(join(at, 'app')), ['release'])
    assert.equal(readFileSync(join(at, 'app/release'), 'utf8'), '2')
    assert.deepEqual(readdirSync(join(at, 'data')).sort(), ['0', '2', '3', '4', '5', '6', 'large', 'link'])
    assert.ok(readFileSync(join(at, 'data/link')).equals(readFileSync(join(folder, 'host/large'))))
  } finally {
    await unmount(at)
  }
})

function compare(entry: LayerEntry, path: string): void {
  const found = lstatSync(path)
  if ('deleted' in entry) return assert.ok(found.isCharacterDevice() && found.rdev === 0, path)
  if ('directory' in entry) return assert.ok(found.isDirectory(), path)
  if ('text' in entry) return assert.equal(readFileSync(path, 'utf8'), entry.text)
  const wanted = lstatSync(entry.from)
  assert.equal(found.mode, wanted.mode, path)
  assert.equal(found.mtimeMs, Math.floor(wanted.mtimeMs / 1000) * 1000, path)
  if (wanted.isSymbolicLink()) return assert.equal(readlinkSync(path), readlinkSync(entry.from))
  assert.ok(readFileSync(path).equals(readFileSync(entry.from)), path)
}

test('a damaged layer fails the pull, and nothing of it stays', { skip }, async (t) => {
  const { server, reference, into } = await setup(t)
  const client = { plainHttp: 'always' } as const
  // Behind the tar's end in most layers, in the middle in others: all are found.
  for (const at of [40, 5_000]) {
    server.fail({ match: { method: 'GET', route: 'blob' }, times: 4, fault: { kind: 'wrong-bytes', at } })
    await assert.rejects(plainPull({ reference, client, directory: into }))
    assert.deepEqual(readdirSync(into), [])
    server.clearFaults()
  }
  await plainPull({ reference, client, directory: into })
})

test('an aborted pull ends at once and leaves nothing, a cut one goes on where it was', { skip }, async (t) => {
  const { server, reference, into } = await setup(t)
  const client = { plainHttp: 'always', retry: { baseDelayMs: 1 } } as const
  const stop = new AbortController()
  const onProgress = (): void => stop.abort()
  await assert.rejects(plainPull({ reference, client, directory: into, signal: stop.signal, onProgress }))
  assert.deepEqual(readdirSync(into), [])
  server.fail({ match: { route: 'blob' }, times: 2, fault: { kind: 'cut', afterBytes: 70_000 } })
  const { entries } = await plainPull({ reference, client, directory: into })
  assert.ok(entries > 400)
})

test('an image that is not there, and a folder that is taken, are told', { skip }, async (t) => {
  const { reference, into } = await setup(t)
  const client = { plainHttp: 'always' } as const
  await assert.rejects(plainPull({ reference: `${reference}-not`, client, directory: into }), { code: 'NOT_FOUND' })
  mkdirSync(join(into, '1'))
  writeFileSync(join(into, '1/mine'), '')
  await assert.rejects(plainPull({ reference, client, directory: into }), { code: 'EEXIST' })
  assert.deepEqual(readdirSync(into), ['1'])
  assert.deepEqual(readdirSync(join(into, '1')), ['mine'])
})
