import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Descriptor, digestOf, MEDIA_TYPES } from '../../registry/index.ts'
import { chainIds } from './chain-id.ts'
import { layerLabels } from './layer-labels.ts'

const manifest = digestOf(Buffer.from('manifest'))
const layers = Array.from(
  { length: 100 },
  (_, index): Descriptor => ({
    mediaType: MEDIA_TYPES.ociLayerGzip,
    digest: digestOf(Buffer.from(`${index}`)),
    size: 1,
    ...(index === 0 ? { urls: ['https://a/x', 'https://b/y'] } : {}),
    annotations: { 'containerd.io/snapshot/nydus-blob': 'true', 'org.example/other': 'x' },
  }),
)
const place = { reference: 'r/app:1', manifest, layers, chainId: 'sha256:chain', skipsVerification: false } as const

test('no label is longer than containerd takes, however many layers there are', () => {
  for (const style of ['containerd', 'stargz'] as const) {
    const labels = layerLabels({ ...place, style, index: 0 })
    for (const [key, value] of Object.entries(labels)) assert.ok(key.length + value.length <= 4096, key)
    const list = Object.entries(labels).find(([key]) => /\.(?:image-)?layers$/.test(key))?.[1] ?? ''
    assert.ok(list.split(',').length > 50)
    assert.ok(list.startsWith(`${layers[0]?.digest},${layers[1]?.digest},`))
  }
})

test('only annotations for snapshotters become labels, and the last layer names only itself', () => {
  assert.deepEqual(layerLabels({ ...place, style: 'containerd', index: 99 }), {
    'containerd.io/snapshot/nydus-blob': 'true',
    'containerd.io/snapshot/cri.image-ref': 'r/app:1',
    'containerd.io/snapshot/cri.layer-digest': layers[99]?.digest,
    'containerd.io/snapshot/cri.image-layers': layers[99]?.digest,
    'containerd.io/snapshot/cri.manifest-digest': manifest,
    'containerd.io/snapshot.ref': 'sha256:chain',
  })
})

test('stargz-snapshotter gets the labels that its own client gives', () => {
  const two = { ...place, layers: layers.slice(0, 2), skipsVerification: true }
  assert.deepEqual(layerLabels({ ...two, style: 'stargz', index: 0 }), {
    'containerd.io/snapshot/nydus-blob': 'true',
    'containerd.io/snapshot/remote/stargz.reference': 'r/app:1',
    'containerd.io/snapshot/remote/stargz.digest': layers[0]?.digest,
    'containerd.io/snapshot/remote/stargz.layers': `${layers[0]?.digest},${layers[1]?.digest}`,
    'containerd.io/snapshot/remote/stargz.prefetch': '10485760',
    'containerd.io/snapshot/remote/urls.0': 'https://a/x,https://b/y',
    'containerd.io/snapshot/remote/stargz.skipverify': 'true',
    'containerd.io/snapshot.ref': 'sha256:chain',
  })
})

test('chain ids are those of the specification', () => {
  const [a, b, c] = ['a', 'b', 'c'].map((text) => digestOf(Buffer.from(text)))
  assert.ok(a && b && c)
  const ab = digestOf(Buffer.from(`${a} ${b}`))
  assert.deepEqual(chainIds([a, b, c]), [a, ab, digestOf(Buffer.from(`${ab} ${c}`))])
  assert.deepEqual(chainIds([]), [])
})
