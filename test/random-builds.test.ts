/** Random trees, built with random options: what the image shows is the tree, for our reader and for the kernel. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { BLOB_FEATURES } from '../src/blob/index.ts'
import { localfsBackend } from '../src/backend/index.ts'
import { checkBlobs, checkBootstrap } from '../src/builder/index.ts'
import { DEFAULTS, filesIn, temporary } from '../src/builder/testing.ts'
import { forSeeds, PROPERTY_LIMITS, type Random } from './random.ts'
import {
  type BuiltFiles,
  buildInto,
  kernelShowsImages,
  randomOptions,
  shownByKernel,
  shownImage,
  unpacked,
} from './random-images.ts'
import { anyName, archiveOf, plant, randomTree, type TreeNode, type TreeShape, type TreeType } from './random-tree.ts'
import { assertSamePaths, linesOf, type ShownPath, shownTree, withoutRootTime } from './shown-paths.ts'

const isRoot = process.getuid?.() === 0
const UNPLAIN = BLOB_FEATURES.BATCH | BLOB_FEATURES.ENCRYPTED
const FILES: TreeShape['types'] = ['directory', 'directory', 'file', 'file', 'file', 'symlink', 'char', 'block', 'fifo']

function treeOf(random: Random, types: TreeShape['types'], linked: readonly TreeType[]): TreeNode {
  return randomTree(random, { nodes: 1 + random(40), types, name: anyName, linked: new Set(linked), xattrs: true })
}

/** Archives have whole seconds. */
function* wholeSeconds(paths: Iterable<ShownPath>): Generator<ShownPath> {
  for (const path of paths) yield { ...path, mtimeNsec: 0 }
}

function withoutRoot(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.startsWith('{"path":"/",'))
}

async function assertShows(built: BuiltFiles, folder: string, wanted: readonly string[]): Promise<void> {
  assertSamePaths(linesOf(shownImage(built.image, built.blobs)), wanted, 'image')
  assert.deepEqual([...checkBootstrap(built.image)], [])
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  try {
    for await (const finding of checkBlobs(built.image, backend, new AbortController().signal))
      assert.fail(finding.message)
  } finally {
    await backend.close()
  }
  // A disk holds plain chunks at their places.
  const isPlain = built.image.blobs.every(({ features }) => (features & UNPLAIN) === 0)
  if (!kernelShowsImages || built.image.version !== 6 || built.path.includes('/blobs/') || !isPlain) return
  assertSamePaths(linesOf(await shownByKernel(built, folder)), wanted, 'kernel')
}

/** Builds twice: the second must give the same files. */
async function buildTwice(
  random: Random,
  tree: TreeNode,
  source: Parameters<typeof buildInto>[1],
  folder: string,
): Promise<BuiltFiles> {
  const options = randomOptions(random, tree)
  const built = await buildInto(join(folder, 'one'), source, options)
  const again = await buildInto(join(folder, 'two'), source, options)
  const blobs = (name: string): string[] => filesIn(join(folder, name, 'blobs'))
  assert.deepEqual(blobs('two'), blobs('one'))
  for (const [at, blob] of built.blobs.entries()) assert.ok(again.blobs[at]?.equals(blob), 'another blob')
  assert.deepEqual(filesIn(join(folder, 'two')), filesIn(join(folder, 'one')))
  return built
}

test('an image of any archive shows what the archive holds', PROPERTY_LIMITS, async (t) => {
  const top = temporary(t)
  await forSeeds(40, async (random, seed) => {
    const folder = join(top, String(seed))
    mkdirSync(folder)
    const tree = treeOf(random, FILES, ['file', 'char', 'block', 'fifo', 'symlink'])
    const path = join(folder, 'layer.tar')
    writeFileSync(path, await archiveOf(tree, random))
    const built = await buildTwice(random, tree, { kind: 'tar', path }, folder)
    const wanted = linesOf(wholeSeconds(shownTree(tree)))
    await assertShows(built, join(folder, 'one'), wanted)
    const again = { kind: 'tar', path: await unpacked(built, join(folder, 'one')) } as const
    const rebuilt = await buildInto(join(folder, 'three'), again, DEFAULTS)
    // An archive that is unpacked has no entry for its root.
    assertSamePaths(
      withoutRoot(linesOf(shownImage(rebuilt.image, rebuilt.blobs))),
      withoutRoot(wanted),
      'unpacked image',
    )
  })
})

test('an image of any directory shows what the directory holds', {
  ...PROPERTY_LIMITS,
  skip: !isRoot && 'needs root for devices and owners',
}, async (t) => {
  const top = temporary(t)
  await forSeeds(40, async (random, seed) => {
    const folder = join(top, String(seed))
    const path = join(folder, 'tree')
    mkdirSync(path, { recursive: true })
    const tree = treeOf(random, [...FILES, 'socket'], ['file'])
    plant(tree, path)
    const built = await buildTwice(random, tree, { kind: 'directory', path }, folder)
    await assertShows(built, join(folder, 'one'), linesOf(withoutRootTime(shownTree(tree))))
  })
})
