import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { digestOf, MEDIA_TYPES } from '../registry/index.ts'
import { CRI_LAYER_DIGEST, CRI_MANIFEST_DIGEST, NYDUS_BLOB, NYDUS_BOOTSTRAP, SNAPSHOT_REF } from './labels.ts'
import { LostAnnotations } from './lost-annotations.ts'
import { callsOf, startSnapshotter, type TestSnapshotter, whyNoMounts } from './testing.ts'

const skip = whyNoMounts()
const named = (text: string): string => digestOf(Buffer.from(text))
const [blobA, blobB, bootstrap, above, config] = [named('a'), named('b'), named('boot'), named('above'), named('{}')]
const TYPES = new Map<string, string>([
  [blobA, MEDIA_TYPES.ociLayerNydusBlob],
  [blobB, MEDIA_TYPES.ociLayerNydusBlob],
])

function manifestOf(layers: readonly string[]): Buffer {
  const descriptors = layers.map((digest) => ({
    mediaType: TYPES.get(digest) ?? MEDIA_TYPES.ociLayerGzip,
    digest,
    size: 1,
  }))
  const document = { schemaVersion: 2, mediaType: MEDIA_TYPES.ociManifest, layers: descriptors }
  return Buffer.from(
    JSON.stringify({ ...document, config: { mediaType: MEDIA_TYPES.ociConfig, digest: config, size: 1 } }),
  )
}

async function start(t: TestContext): Promise<TestSnapshotter> {
  const started = await startSnapshotter()
  t.after(async () => await started.close())
  return started
}

/** As containerd stores it; gives what it is called. */
function stored({ root }: TestSnapshotter, bytes: Uint8Array, digest: string = digestOf(bytes)): string {
  const folder = join(root, '../io.containerd.content.v1.content/blobs/sha256')
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, digest.slice('sha256:'.length)), bytes)
  return digest
}

function labelsOf(manifest: string, layer: string): Record<string, string> {
  return { [CRI_MANIFEST_DIGEST]: manifest, [CRI_LAYER_DIGEST]: layer, [SNAPSHOT_REF]: layer }
}

test('of a Nydus image that a build left without annotations, layers with data are left out and its bootstrap is known when it is committed', {
  skip,
}, async (t) => {
  const started = await start(t)
  const { store } = started
  const manifest = stored(started, manifestOf([blobA, blobB, bootstrap, above]))
  const calls = callsOf(started.client)
  for (const [i, layer] of [blobA, blobB].entries()) {
    const wanted = { key: `extract-${i}`, parent: i === 0 ? '' : blobA, labels: labelsOf(manifest, layer) }
    await assert.rejects(calls.prepare(wanted), { code: 'ALREADY_EXISTS' })
    assert.equal(store.stat(layer).labels.get(NYDUS_BLOB), 'true')
  }
  const labels = labelsOf(manifest, bootstrap)
  const { mounts } = await calls.prepare({ key: 'extract-2', parent: blobB, labels })
  assert.equal(mounts[0]?.type, 'overlay')
  await calls.commit({ name: bootstrap, key: 'extract-2', labels })
  assert.equal(store.stat(bootstrap).labels.get(NYDUS_BOOTSTRAP), 'true')
  assert.deepEqual(started.complaints, [])
})

test('an ordinary layer is what its labels say, and so is a commit under another name', { skip }, async (t) => {
  const started = await start(t)
  const { store } = started
  const calls = callsOf(started.client)
  const plain = labelsOf(stored(started, manifestOf([above, bootstrap])), above)
  await calls.prepare({ key: 'plain', labels: plain })
  await calls.commit({ name: above, key: 'plain', labels: plain })
  assert.deepEqual([...store.stat(above).labels], Object.entries(plain))
  const nydus = labelsOf(stored(started, manifestOf([blobA, bootstrap])), bootstrap)
  await calls.prepare({ key: 'other', labels: nydus })
  await calls.commit({ name: 'without-labels', key: 'other' })
  assert.equal(store.stat('without-labels').labels.size, 0)
})

test('nothing is told by manifests that are absent, wrong, too large, an index, or named by what is no digest', {
  skip,
}, async (t) => {
  const started = await start(t)
  const lost = new LostAnnotations(started.root)
  const good = manifestOf([blobA, bootstrap])
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests: [] }))
  const manifests = [
    named('absent'),
    stored(started, good, named('another')),
    stored(started, Buffer.concat([good, Buffer.alloc(4 << 20, ' ')])),
    stored(started, index),
    stored(started, Buffer.from('{"schemaVersion":2,"layers":[{"mediaType":1}]}')),
    stored(started, Buffer.from('no JSON')),
    'sha256:../../../../etc/passwd',
    '',
  ]
  for (const manifest of manifests) {
    const labels = new Map(Object.entries(labelsOf(manifest, blobA)))
    assert.equal(await lost.restored(labels), labels, manifest)
  }
  const labels = new Map(Object.entries(labelsOf(stored(started, good), blobA)))
  assert.equal((await lost.restored(labels)).get(NYDUS_BLOB), 'true')
})

test('a manifest that comes later is seen, and is read once', { skip }, async (t) => {
  const started = await start(t)
  const lost = new LostAnnotations(started.root)
  const bytes = manifestOf([blobA, bootstrap])
  const labels = new Map(Object.entries(labelsOf(digestOf(bytes), bootstrap)))
  assert.equal(await lost.restored(labels), labels)
  const manifest = stored(started, bytes)
  assert.equal((await lost.restored(labels)).get(NYDUS_BOOTSTRAP), 'true')
  stored(started, Buffer.from('gone'), digestOf(bytes))
  assert.equal(manifest, digestOf(bytes))
  assert.equal((await lost.restored(labels)).get(NYDUS_BOOTSTRAP), 'true')
})
