/** Every image of the original's tools that this version can read, mounted: the tree, every xattr and every byte equal the expected tree. */
import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { cachePath } from '../src/cache/index.ts'
import { mountErofs, unmount, whyNoFuse } from '../src/kernel/index.ts'
import { checkImage, whyNoKernelImages } from '../src/snapshotter/kernel-images/index.ts'
import { openBootstrap } from '../src/rafs/index.ts'
import { BLOB_FEATURES } from '../src/blob/index.ts'
import { addDerivedBlobs } from '../src/engine/testing.ts'
import { localConfig, noSharedFixtures, Scratch, SHARED_FIXTURES, treeDifferences } from '../src/daemon/testing.ts'

interface Image {
  readonly id: string
  readonly exit: number
  readonly bootstrap?: string
  readonly bootstrap_from_blob?: boolean
  readonly tree?: string
  readonly blobs: readonly string[]
  /** Of a reference to a layer: the blob that the bootstrap lay in. */
  readonly inline_blob?: string
  readonly verified?: { readonly fuse?: unknown }
}

const LATER = BLOB_FEATURES.EXTERNAL
const skip = whyNoFuse() ?? noSharedFixtures

/** The images that the original mounts right, without those whose way of storing data is for a later version. */
function images(): Image[] {
  const manifest = JSON.parse(readFileSync(join(SHARED_FIXTURES, 'manifest.json'), 'utf8')) as { images: Image[] }
  return manifest.images.filter((image) => {
    if (image.exit !== 0 || image.tree === undefined || image.bootstrap === undefined) return false
    const path = join(SHARED_FIXTURES, image.bootstrap)
    if (image.verified?.fuse !== 'equal' || !existsSync(path)) return false
    const { blobs } = openBootstrap(readFileSync(path))
    return blobs.every(({ features }) => (features & LATER) === 0)
  })
}

test('all images of the original show the expected trees, in one session', { skip, timeout: 240_000 }, async (t) => {
  await using scratch = new Scratch()
  const daemon = await scratch.nydusd(['--log-level', 'warn'])
  const config = localConfig(blobFolder(scratch), scratch.cache)
  // Tars of tarfs images are not fetched: they lie where chunks are kept.
  addDerivedBlobs(SHARED_FIXTURES, scratch.cache)
  const shown: string[] = []
  const counts = (_key: string, value: unknown): unknown => (Array.isArray(value) ? value.length : value)
  const noKernelImages = (await whyNoKernelImages(scratch.cache, 'possible')) ?? false
  const all = images()
  assert.ok(all.length >= 60, `${all.length} images`)
  for (const image of all) {
    await t.test(image.id, async () => {
      const path = `/images/${image.id}`
      const answer = await daemon.api('POST', `/api/v1/mount?mountpoint=${path}`, {
        source: bootstrapOf(image, scratch),
        fs_type: 'rafs',
        config,
      })
      assert.deepEqual([answer.status, answer.text], [204, ''])
      assert.deepEqual(treeDifferences(join(scratch.mnt, path), join(SHARED_FIXTURES, image.tree ?? '')), [])
      assert.equal((await daemon.api('DELETE', `/api/v1/mount?mountpoint=${path}`)).status, 204)
      if (noKernelImages === false) shown.push(await shownByKernel(image, scratch))
    })
  }
  assert.equal(await daemon.stop(), 0, daemon.log)
  t.diagnostic(
    `shown by the kernel too: ${JSON.stringify(
      Object.groupBy(shown, (kind) => kind),
      counts,
    )}`,
  )
  assert.ok(noKernelImages !== false || shown.filter((kind) => kind === 'fit').length >= 30, shown.join())
  assert.equal(daemon.log, '')
})

/** A bootstrap that lay inside its blob is called after that. */
function bootstrapOf(image: Image, scratch: Scratch): string {
  const path = join(SHARED_FIXTURES, image.bootstrap ?? '')
  const id = image.inline_blob === undefined ? image.blobs[0] : basename(image.inline_blob)
  if (image.bootstrap_from_blob !== true || id === undefined) return path
  const named = join(scratch.path, id)
  copyFileSync(path, named)
  return named
}

/** The pool of blobs, and those that are derived from sources: the layers that reference images leave as they are. */
function blobFolder(scratch: Scratch): string {
  const folder = scratch.folder('blobs')
  const pool = join(SHARED_FIXTURES, 'blobs')
  for (const name of readdirSync(pool)) symlinkSync(join(pool, name), join(folder, name))
  addDerivedBlobs(SHARED_FIXTURES, folder)
  return folder
}

/** All of it was read, so all of its data is in the cache: images whose data lies there as it is can be mounted from there, and show the same. Gives what became of it. */
async function shownByKernel(image: Image, scratch: Scratch): Promise<string> {
  const [output, at] = [join(scratch.path, `${image.id}.shown`), join(scratch.path, 'shown')]
  const task = { bootstrap: bootstrapOf(image, scratch), output, cacheDir: scratch.cache }
  const answer = await checkImage({ ...task, mapping: undefined, uid: 0, gid: 0 })
  assert.notEqual(answer.kind, 'damaged', JSON.stringify(answer))
  if (answer.kind !== 'fit')
    return answer.kind === 'unfit' ? answer.why.replaceAll(/[0-9a-f]{64}|\d+/g, '…') : answer.kind
  mkdirSync(at, { recursive: true })
  await mountErofs(
    output,
    at,
    answer.blobs.map(({ id }) => cachePath(scratch.cache, id, 'data')),
  )
  try {
    assert.deepEqual(treeDifferences(at, join(SHARED_FIXTURES, image.tree ?? '')), [])
  } finally {
    await unmount(at)
  }
  return answer.kind
}
