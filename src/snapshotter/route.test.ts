import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  CRI_IMAGE_LAYERS,
  CRI_IMAGE_REF,
  CRI_LAYER_DIGEST,
  CRI_MANIFEST_DIGEST,
  NYDUS_BLOB,
  NYDUS_BOOTSTRAP,
  NYDUS_INDEX_ALTERNATIVE,
  NYDUS_PROXY_MODE,
  NYDUS_ALTERNATIVE,
  NYDUS_TARFS,
  SNAPSHOT_REF,
  STARGZ,
  STARGZ_REFERENCE,
} from './labels.ts'
import { isTopLayer, referenceOf, routeContent, routeLayer, type RouteOptions } from './route.ts'
import type { Snapshot } from './snapshot.ts'

const NONE: RouteOptions = { proxy: false, detect: false, stargz: false, tarfs: false }
const ALL: RouteOptions = { proxy: false, detect: true, stargz: true, tarfs: true }
const PROXY: RouteOptions = { ...NONE, proxy: true }

let lastId = 0
/** A committed layer with these labels, each "true". */
function layer(...labels: Array<string | readonly [string, string]>): Snapshot {
  return {
    id: ++lastId,
    key: `k8s.io/${lastId}/layer`,
    parent: '',
    kind: 'committed',
    labels: new Map(labels.map((label) => (typeof label === 'string' ? [label, 'true'] : label))),
    createdAt: 0n,
    updatedAt: 0n,
    usage: undefined,
  }
}
const labelsOf = (...labels: string[]): Map<string, string> =>
  new Map([SNAPSHOT_REF, ...labels].map((label) => [label, 'true']))

const LAYERS: ReadonlyArray<readonly [string, string[], Snapshot[], RouteOptions, unknown]> = [
  [
    'with the proxy driver is left to the virtual machine, also a bootstrap',
    [CRI_LAYER_DIGEST, NYDUS_BOOTSTRAP],
    [],
    PROXY,
    { kind: 'skip', labels: labelsOf(CRI_LAYER_DIGEST, NYDUS_BOOTSTRAP, NYDUS_PROXY_MODE) },
  ],
  ['with a bootstrap is unpacked', [NYDUS_BOOTSTRAP, NYDUS_BLOB], [], ALL, { kind: 'native' }],
  ['with data of a Nydus image is left out', [NYDUS_BLOB], [], NONE, { kind: 'skip', labels: labelsOf(NYDUS_BLOB) }],
  ['of an ordinary image is unpacked', [], [], NONE, { kind: 'native' }],
  [
    'of an ordinary image is tried in all ways that are configured, in order',
    [],
    [],
    ALL,
    { kind: 'try', probes: ['detect', 'stargz', 'tarfs'] },
  ],
  ['on unpacked ones is not converted', [], [layer()], ALL, { kind: 'try', probes: ['detect'] }],
  [
    'on converted ones is converted in their way',
    [],
    [layer(NYDUS_TARFS), layer(NYDUS_TARFS)],
    ALL,
    { kind: 'try', probes: ['detect', 'tarfs'] },
  ],
  ['on eStargz ones is one of these', [], [layer(STARGZ)], ALL, { kind: 'try', probes: ['detect', 'stargz'] }],
  [
    'on a Nydus image is unpacked upon it',
    [],
    [layer(), layer(NYDUS_BOOTSTRAP), layer(NYDUS_BLOB)],
    ALL,
    { kind: 'native' },
  ],
]
for (const [name, labels, chain, options, expected] of LAYERS)
  test(`a layer ${name}`, () => {
    assert.deepEqual(routeLayer(labelsOf(...labels), chain, options), expected)
  })

test('a layer of an image whose form was found for the layer below is left out without asking', () => {
  const form = [NYDUS_ALTERNATIVE, 'index,sha256:1,2'] as const
  const below = layer([CRI_MANIFEST_DIGEST, 'sha256:m'], form)
  const of = (manifest: string) => new Map([...labelsOf(), [CRI_MANIFEST_DIGEST, manifest]])
  assert.deepEqual(routeLayer(of('sha256:m'), [below], NONE), {
    kind: 'skip',
    labels: new Map([...of('sha256:m'), form]),
  })
  assert.equal(routeLayer(of('sha256:other'), [below], ALL).kind, 'try')
})

test('the proxy driver needs the digest of the layer, and says how clients give it', () => {
  assert.throws(() => routeLayer(labelsOf(), [], PROXY), {
    code: 'INVALID_ARGUMENT',
    message: /disable_snapshot_annotations/,
  })
})

const data = layer(NYDUS_BLOB)
const meta = layer(NYDUS_BOOTSTRAP, [CRI_IMAGE_REF, 'a/b:c'])
const plain = layer()
const [second, tar, guest] = [layer(), layer(NYDUS_TARFS), layer(NYDUS_PROXY_MODE, CRI_IMAGE_REF)]
const CONTENTS: ReadonlyArray<readonly [string, Snapshot[], RouteOptions, string, Snapshot | undefined, Snapshot[]]> = [
  ['nothing', [], NONE, 'native', undefined, []],
  ['ordinary layers', [second, plain], ALL, 'native', undefined, []],
  ['a Nydus image', [meta, data], NONE, 'rafs', meta, []],
  [
    "Docker's init layer, or a committed one, on a Nydus image",
    [second, plain, meta, data],
    NONE,
    'rafs',
    meta,
    [second, plain],
  ],
  ['data without its bootstrap', [data], NONE, 'data', data, []],
  ['a detected image', [layer(NYDUS_INDEX_ALTERNATIVE)], NONE, 'detected', undefined, []],
  ['an image that was detected by its referrers', [layer(NYDUS_ALTERNATIVE)], NONE, 'detected', undefined, []],
  ['converted layers, with an unpacked one above', [second, tar, layer(NYDUS_TARFS)], NONE, 'tarfs', tar, [second]],
  ['eStargz layers', [layer(STARGZ)], NONE, 'stargz', undefined, []],
  ['an image that a virtual machine pulls', [guest], PROXY, 'guest', guest, []],
  [
    'a layer of a container on an image that a virtual machine pulls',
    [layer(NYDUS_PROXY_MODE)],
    PROXY,
    'guest',
    undefined,
    [],
  ],
  ['what was unpacked elsewhere, with the proxy driver', [plain], PROXY, 'proxy', undefined, []],
  ['nothing, with the proxy driver', [], PROXY, 'proxy', undefined, []],
  ['an image for virtual machines, with another driver', [guest], NONE, 'proxy', undefined, []],
]
for (const [name, chain, options, kind, found, above] of CONTENTS)
  test(`a snapshot on ${name} shows ${kind}`, () => {
    const route = routeContent(chain, options)
    assert.equal(route.kind, kind)
    if (!('layer' in route)) return
    if (found !== undefined) assert.equal(route.layer, found)
    assert.deepEqual(route.above, above)
    assert.deepEqual([...route.above, route.layer, ...route.below], chain)
  })

test('a layer that an earlier version skipped without a mark is asked for, one that a client committed is not', () => {
  const skipped = { ...layer(CRI_MANIFEST_DIGEST), key: `sha256:${'a'.repeat(64)}` }
  assert.equal(routeContent([skipped], ALL).kind, 'unknown')
  assert.equal(routeContent([skipped], NONE).kind, 'native')
  assert.equal(routeContent([layer(CRI_MANIFEST_DIGEST)], ALL).kind, 'native')
})

test('a layer that an image shares with the one it was pulled for is not the top of that', () => {
  assert.equal(isTopLayer(layer([CRI_IMAGE_LAYERS, 'sha256:a,sha256:b'])), false)
  assert.equal(isTopLayer(layer([CRI_IMAGE_LAYERS, 'sha256:b'])), true)
  assert.equal(isTopLayer(layer()), true)
})

test("an image's name is on the layer or on those below it, as either kind of client tells it", () => {
  const named = layer([STARGZ_REFERENCE, 'x/y:z'])
  assert.equal(referenceOf(meta, [named]), 'a/b:c')
  assert.equal(referenceOf(plain, [second, named, meta]), 'x/y:z')
  assert.equal(referenceOf(plain, []), '')
})
