import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Attributes, openBootstrap } from '../rafs/index.ts'
import { compareWithImage, mergeImages, readSourceTree } from './index.ts'
import { buildTar, inPieces, tarOf } from './testing.ts'

const XATTR = [{ name: Buffer.from('user.k'), value: Buffer.from('v') }]

/** What `/srv/data` of a bootstrap is: owner, mode, time, number of xattrs. */
function shown(bootstrap: Uint8Array): string {
  const image = openBootstrap(bootstrap)
  const attributes = new Attributes()
  const srv = image.lookup(image.root, Buffer.from('srv')) ?? assert.fail('no srv')
  const ino = image.lookup(srv, Buffer.from('data')) ?? assert.fail('no data')
  image.attributes(ino, attributes)
  const { uid, gid, mode, mtime, hasXattrs } = attributes
  return `${uid}:${gid} ${mode.toString(8)} ${mtime} ${hasXattrs ? image.xattrs(ino).length : 0}`
}

const lower = await tarOf([
  { path: 'srv/data', type: 'directory', mode: 0o2770, uid: 70, gid: 71, mtimeSeconds: 1234, xattrs: XATTR },
])
/** A file in it, but not the directory itself: as builders of layers that want only changes do. */
const upper = await tarOf([{ path: 'srv/data/new', content: Buffer.from('new') }])

test('a directory that the upper layer only implies stays as the lower layer has it', async () => {
  const below = await buildTar(lower)
  const over = await buildTar(upper, { parent: openBootstrap(below.bootstrap) })
  assert.equal(shown(over.bootstrap), '70:71 42770 1234 1')
})

test('the same where built layers are merged in memory, and when they are compared with their source', async () => {
  const layers = [await buildTar(lower), await buildTar(upper)]
  const { bootstrap } = mergeImages(
    layers.map((built, at) => ({
      name: `layer ${at}`,
      image: openBootstrap(built.bootstrap),
      blobId: undefined,
      blobSize: undefined,
      tocDigest: undefined,
      tocSize: undefined,
    })),
    { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] },
  )
  assert.equal(shown(bootstrap), '70:71 42770 1234 1')
  const source = await readSourceTree([() => inPieces(lower), () => inPieces(upper)], {
    chunkSize: 0x10_0000,
    digest: 'blake3',
    signal: new AbortController().signal,
  })
  assert.deepEqual([...compareWithImage(source, openBootstrap(bootstrap))], [])
})

test('a directory that is implied first and listed later is as it is listed', async () => {
  const late = await tarOf([
    { path: 'srv/data/new', content: Buffer.from('new') },
    { path: 'srv/data', type: 'directory', mode: 0o700, uid: 9, gid: 9, mtimeSeconds: 5 },
  ])
  const below = await buildTar(lower)
  const built = await buildTar(late, { parent: openBootstrap(below.bootstrap) })
  assert.equal(shown(built.bootstrap), '9:9 40700 5 0')
})
