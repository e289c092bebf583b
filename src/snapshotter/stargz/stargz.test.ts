import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { digestOf } from '../../registry/index.ts'
import { readMountInfo, unmount, whyNoFuse } from '../../kernel/index.ts'
import { Images } from '../daemons/index.ts'
import { NEVER, pushBlob, pushManifest, testWorld, type World } from '../detect/testing.ts'
import {
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  CRI_MANIFEST_DIGEST,
  SNAPSHOT_REF,
  STARGZ,
  STARGZ_TOC_DIGEST,
} from '../labels.ts'
import { callsOf, startSnapshotter, type TestSnapshotter, whyNoMounts, withMounts } from '../testing.ts'
import { Stargz } from './index.ts'

const run = promisify(execFile)
const project = join(import.meta.dirname, '../../..')
const SOURCES = join(project, '../shared/fixtures/sources')
const skip =
  whyNoMounts() ||
  whyNoFuse() ||
  (existsSync(join(project, 'dist/nydusd.cjs')) ? false : 'dist/ is not built (npm run build)') ||
  (existsSync(join(SOURCES, 'lower.estargz.tar.gz'))
    ? false
    : 'the original layers are not here (../shared/fixtures/sources)')

const layerOf = (name: string) => ({
  bytes: readFileSync(join(SOURCES, `${name}.estargz.tar.gz`)),
  toc: digestOf(readFileSync(join(SOURCES, `${name}.estargz.toc.json`))),
})

/** A snapshotter with nydusd, and an image of these layers; gives the names of its snapshots. */
async function start(
  t: TestContext,
  names: readonly string[],
  change: (labels: Record<string, string>) => void = () => {},
) {
  const world = await testWorld({ auth: undefined })
  const program = join(world.folder, 'nydus-image')
  writeFileSync(
    program,
    `#!/bin/sh\nexec '${process.execPath}' '${join(project, 'src/cli/nydus-image/index.ts')}' "$@"\n`,
  )
  chmodSync(program, 0o755)
  const template = join(world.folder, 'nydusd.json')
  const device = { backend: { type: 'registry', config: { scheme: 'http' } }, cache: { type: 'blobcache' } }
  writeFileSync(template, JSON.stringify({ device, mode: 'direct', fs_prefetch: { enable: false } }))
  const credentials = { find: async () => undefined }
  const log = { error: () => {}, warn: () => {}, info: () => {}, debug: () => {} }
  const snapshotter = await startSnapshotter({
    config: `cleanup_on_close = true\n[daemon]\nnydusd_path = "${join(project, 'bin/nydusd')}"\nnydusd_config = "${template}"\n[experimental]\nenable_stargz = true\n`,
    images: async (settings, store) => {
      const records = { daemons: store.records('daemons'), instances: store.records('instances') }
      return await Images.start({ settings: settings as never, records, credentials, isThere: () => true, log })
    },
    stargz: ({ root }) =>
      new Stargz({ root, program, credentials, access: { skipVerify: false, plainHttp: 'localhost' }, log }),
  })
  t.after(async () => {
    await snapshotter.close()
    for (const { at } of (await readMountInfo()).reverse()) if (at.startsWith(snapshotter.root)) await unmount(at, true)
    await world[Symbol.asyncDispose]()
  })
  return { world, snapshotter, pulled: await pull(world, snapshotter, names, change) }
}

async function pull(
  world: World,
  { client }: TestSnapshotter,
  names: readonly string[],
  change: (labels: Record<string, string>) => void,
) {
  const layers = names.map(layerOf)
  const blobs = []
  for (const { bytes } of layers) blobs.push(await pushBlob(world.repository, bytes))
  const manifest = await pushManifest(world.repository, blobs)
  const outcomes: unknown[] = []
  let parent = ''
  for (const [i, { toc }] of layers.entries()) {
    const labels = {
      [SNAPSHOT_REF]: `sha256:${String(i).repeat(64)}`,
      [CRI_IMAGE_REF]: `${world.server.host}/app:v1`,
      [CRI_MANIFEST_DIGEST]: String(manifest.digest),
      [CRI_LAYER_DIGEST]: String(blobs[i]?.digest),
      [STARGZ_TOC_DIGEST]: String(toc),
    }
    change(labels)
    const calls = callsOf(client)
    outcomes.push(
      await calls.prepare({ key: `x${i}`, parent, labels }).then(
        () => 'unpacked',
        ({ code }) => code,
      ),
    )
    parent = labels[SNAPSHOT_REF] ?? ''
  }
  return { outcomes, top: parent, sizes: blobs.map(({ size }) => size) }
}

test('eStargz layers are left out and read by nydusd, chunk by chunk; the tree is that of the layers', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { world, snapshotter, pulled } = await start(t, ['lower', 'small'])
  const { client, store, work } = snapshotter
  assert.deepEqual(pulled.outcomes, ['ALREADY_EXISTS', 'ALREADY_EXISTS'])
  assert.equal(store.stat(pulled.top).labels.get(STARGZ), 'true')
  const all = await Promise.all([1, 2].map((i) => callsOf(client).prepare({ key: `c${i}`, parent: pulled.top })))
  const mounts = all[0]?.mounts ?? []
  // What tar makes of the same layers, one over the other.
  const [flat, at] = [join(work, 'flat'), join(work, 'mnt')]
  mkdirSync(flat)
  for (const name of ['lower', 'small'])
    await run('tar', ['xzpf', join(SOURCES, `${name}.estargz.tar.gz`), '-C', flat]).catch(() => {}) // times to come are told
  // Not by this process, which is the registry.
  await withMounts(mounts, at, async () => {
    for (const folder of ['d', 'dup', 'sizes', 'sparse'])
      await run('diff', ['-r', '--no-dereference', join(at, folder), join(flat, folder)])
  })
  assert.ok(world.server.counters().blob.bytesOut > 0)
  assert.deepEqual((await callsOf(client).mounts({ key: 'c1' })).mounts, mounts)
  assert.deepEqual(snapshotter.complaints, [])
})

test('a layer whose table of contents is not the one of its image is unpacked', {
  skip,
  timeout: 180_000,
}, async (t) => {
  const { snapshotter, pulled } = await start(t, ['lower'], (labels) => {
    labels[STARGZ_TOC_DIGEST] = `sha256:${'0'.repeat(64)}`
  })
  assert.deepEqual(pulled.outcomes, ['unpacked'])
  assert.deepEqual(await snapshotter.snapshotter.cleanup(NEVER), undefined)
})
