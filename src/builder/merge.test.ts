/** Merged images of the original, merged again. Their layers' bootstraps are named by the blob that they came out of. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { test } from 'node:test'
import { type Bootstrap, dumpEntries, openBootstrap } from '../rafs/index.ts'
import {
  BuilderError,
  checkBootstrap,
  mergeImages,
  type MergeLayer,
  type MergeOptions,
  parsePrefetchPatterns,
} from './index.ts'
import { type ArchiveEntry, assertSameMeaning, buildTar, noShared, sharedImages, sharedPath, tarOf } from './testing.ts'

const PLAIN: MergeOptions = { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] }

function layer(image: Bootstrap, name = 'layer', more: Partial<MergeLayer> = {}): MergeLayer {
  return { name, image, blobId: undefined, blobSize: undefined, tocDigest: undefined, tocSize: undefined, ...more }
}

/** `layers/<blob>` is kept as the bootstrap of the image whose blob that is. */
function openLayer(path: string): Bootstrap {
  if (!path.startsWith('layers/')) return openBootstrap(readFileSync(sharedPath(path)))
  const id = basename(path)
  const owner = (sharedImages() as Array<{ id: string; inline_blob?: string }>).find(
    ({ inline_blob }) => inline_blob === `blobs/${id}`,
  )
  return openBootstrap(readFileSync(sharedPath('images', owner?.id ?? '', 'bootstrap')), {
    inlinedBlobId: id,
  })
}

/** Layers in which the original spoiled a symlink: a merge spoils it once more. Merged layers of ours are compared with the expected tree elsewhere. */
const SPOILED = /tarfs/

const merges =
  noShared === false
    ? sharedImages().filter(
        ({ id, command, exit }) =>
          id.startsWith('v6-') && !SPOILED.test(id) && exit === 0 && command.startsWith('nydus-image merge '),
      )
    : []

for (const image of merges) {
  const words = image.command.split(' ').slice(2)
  const flags = new Map<string, string>()
  while (words[0]?.startsWith('-') === true) flags.set(words.shift() ?? '', words.shift() ?? '')
  const list = (flag: string): string[] | undefined => flags.get(flag)?.split(',')
  const [digests, sizes, originals] = [list('--blob-digests'), list('--blob-sizes'), list('--original-blob-ids')]
  const open = (flag: string): Bootstrap | undefined => {
    const path = flags.get(flag)?.replace('bootstrap=', '')
    return path === undefined ? undefined : openLayer(path)
  }
  const merge = (): ReturnType<typeof mergeImages> =>
    mergeImages(
      words.map((path, at) =>
        layer(openLayer(path), path, {
          blobId: digests?.[at] ?? originals?.[at],
          layerId: originals?.[at],
          metaBlobDigest: digests === undefined ? undefined : Buffer.from(digests[at] ?? '', 'hex'),
          blobSize: sizes === undefined ? undefined : Number(sizes[at]),
        }),
      ),
      {
        ...PLAIN,
        parent: open('--parent-bootstrap'),
        dictionary: open('--chunk-dict'),
        prefetchPaths: parsePrefetchPatterns(Buffer.from(image.stdin ?? '')).paths,
      },
    )
  test(`merges ${image.id} as the original does`, () => {
    const theirs = readFileSync(sharedPath('images', image.id, 'bootstrap'))
    const ours = merge()
    const [found, wanted] = [openBootstrap(ours.bootstrap), openBootstrap(theirs)]
    assert.deepEqual(found.blobs, wanted.blobs)
    assertSameMeaning(found, wanted)
    assert.equal(ours.bootstrap.length, theirs.length)
    assert.deepEqual([...checkBootstrap(found)], [])
    if (image.reproducible === true) assert.ok(Buffer.from(ours.bootstrap).equals(theirs))
  })
}

test('the large set', { skip: noShared }, () => undefined)

async function smallImage(archive: Uint8Array, options: Parameters<typeof buildTar>[1] = {}): Promise<Bootstrap> {
  return openBootstrap((await buildTar(archive, options)).bootstrap)
}

const EMPTY = new Uint8Array(1024)

test('layers that disagree are refused as inconsistent', async () => {
  const [a, b, c] = [
    await smallImage(EMPTY),
    await smallImage(EMPTY, { chunkSize: 4096 }),
    await smallImage(EMPTY, { keepOwners: false }),
  ]
  for (const other of [b, c]) {
    assert.throws(
      () => mergeImages([layer(a), layer(other)], PLAIN),
      (error: unknown) => error instanceof BuilderError && error.code === 'INCONSISTENT',
    )
  }
})

test('a deletion marker of a name that is not UTF-8 deletes it', async () => {
  const name = Buffer.from([0x61, 0xff])
  const [lower, upper] = [
    await smallImage(await tarOf([{ path: name, content: Buffer.from('x') }])),
    await smallImage(await tarOf([{ path: Buffer.concat([Buffer.from('.wh.'), name]) }])),
  ]
  const merged = openBootstrap(mergeImages([layer(lower), layer(upper)], PLAIN).bootstrap)
  assert.deepEqual(
    [...dumpEntries(merged)].map(({ path }) => path),
    ['/'],
  )
})

for (const version of [5, 6] as const) {
  test(`a directory that the upper layer only implies keeps what it is below, in RAFS v${version}`, async () => {
    const xattrs = [{ name: Buffer.from('user.a'), value: Buffer.from('b') }]
    const tmp: ArchiveEntry = { path: 'tmp', type: 'directory', mode: 0o1777, uid: 7, mtimeSeconds: 9, xattrs }
    const listed: ArchiveEntry = { path: 'tmp', type: 'directory', mode: 0o755 }
    const file: ArchiveEntry = { path: 'tmp/new/x', content: Buffer.from('x') }
    const merged = async (...upper: ArchiveEntry[]): Promise<Array<readonly [string, string, number]>> => {
      const layers = [
        await smallImage(await tarOf([tmp]), { version }),
        await smallImage(await tarOf(upper), { version }),
      ]
      const { bootstrap } = mergeImages(
        layers.map((image) => layer(image)),
        PLAIN,
      )
      return [...dumpEntries(openBootstrap(bootstrap))].map(({ path, mode, uid }) => [path, mode, uid] as const)
    }
    const rest = [
      ['/tmp/new', '0755', 0],
      ['/tmp/new/x', '0644', 0],
    ]
    assert.deepEqual((await merged(file)).slice(1), [['/tmp', '1777', 7], ...rest])
    assert.deepEqual((await merged(listed, file)).slice(1), [['/tmp', '0755', 0], ...rest])
    assert.deepEqual((await merged(file, listed)).slice(1), [['/tmp', '0755', 0], ...rest])
  })
}

test('of the bootstraps of layers nothing is held once their trees were read', async () => {
  const layers = [layer(await smallImage(EMPTY)), layer(await smallImage(EMPTY))]
  const left: number[] = []
  mergeImages(layers, { ...PLAIN, onLayer: () => left.push(layers.length) })
  assert.deepEqual(left, [1, 0])
})

test('blobs that differ and have one id are not taken for one', async () => {
  const image = async (content: string, digest: 'blake3' | 'sha256' = 'blake3'): Promise<Bootstrap> =>
    await smallImage(await tarOf([{ path: content, content: Buffer.from(content) }]), { digest })
  const [a, b, sameAsA] = [await image('a'), await image('b'), await image('a', 'sha256')]
  const blobId = '1'.repeat(64)
  const refused = (message: RegExp, ...layers: MergeLayer[]): void =>
    assert.throws(() => mergeImages(layers, PLAIN), { name: 'BuilderError', code: 'BAD_LAYER', message })
  const large = await smallImage(await tarOf([{ path: 'c', content: Buffer.alloc(5000, 'c') }]))
  refused(/two layers have the blob id 1{64}/, layer(a, 'a', { blobId }), layer(large, 'c', { blobId }))
  // What is stored is the same, and so is the name.
  assert.equal(a.blobs[0]?.id, sameAsA.blobs[0]?.id)
  refused(/digested with blake3 in one layer and with sha256 in another/, layer(a), layer(sameAsA))
  assert.equal(mergeImages([layer(a), layer(b), layer(a)], PLAIN).blobs.length, 2)
})

test('nothing to merge is an error', () => {
  assert.throws(
    () => mergeImages([], PLAIN),
    (error: unknown) => error instanceof BuilderError && error.code === 'BAD_OPTION',
  )
})
